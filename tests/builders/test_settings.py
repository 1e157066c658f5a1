"""Settings are orthogonal: every combination that a target supports answers as Hugging Face, the others are refused."""

from __future__ import annotations

import itertools
from functools import partial
from unittest.mock import patch

import pytest
import torch

from ditto import LlavaModel, LlmBuilder
from ditto.configs.build import CHOICES, PRESETS, BuildSettings
from ditto.engine import Phase
from ditto.errors import ConfigError
from ditto.runtime import Request, generate, open_session
from ditto.runtime.encoding import EncoderItem
from ditto.targets import target as target_of
from ditto.targets.tensorrt.target import NativeTarget
from ditto.targets.tensorrt.tuning import TUNINGS
from tests.support.decoding import eager
from tests.support.forms import as_if_large
from tests.support.models import image_features, llama, llava
from tests.support.parts import DIVISIONS, run_in_parts

COMBINATIONS = [*itertools.product(*CHOICES.values(), ("none", "9.0"))]
NEW_TOKENS = 6


def with_settings(builder, weights, engines, profiles, tuning):
    builder = builder.with_weights(weights).with_engines(engines).with_profiles(profiles).with_tuning(tuning)
    return builder.with_target("tensorrt-rtx").with_batch(2).with_opt_input_len(20)


@pytest.fixture(scope="module")
def model():
    return eager(llava(text={"num_hidden_layers": 3}))


@torch.no_grad()
def greedy(model, ids, features):
    """Hugging Face's greedy tokens."""
    embedding = model.get_input_embeddings()
    embeds = torch.cat([features, embedding(torch.tensor(ids))])[None]
    tokens = []
    for _ in range(NEW_TOKENS):
        tokens.append(int(model(inputs_embeds=embeds).logits[0, -1].argmax()))
        embeds = torch.cat([embeds, embedding(torch.tensor([[tokens[-1]]]))], 1)
    return tuple(tokens)


@pytest.mark.drawn(6)
@pytest.mark.parametrize("combination", COMBINATIONS, ids=" ".join)
def test_every_combination_answers_as_hugging_face(model, combination, tmp_path, monkeypatch):
    as_if_large(monkeypatch)  # tuned forms of tiny matrices
    weights, engines, profiles, _ = combination
    builder = with_settings(LlavaModel.from_model(model), *combination)
    with patch.object(NativeTarget, "cannot_compile", "the networks are enough"):
        tree = builder.build_all(tmp_path / "tree")
    assert [*tree.manifest.components] == ["vision", "llm", *(["llm-decode"] if engines == "separate" else [])]
    decode = [
        profile
        for component in tree.manifest.components.values()
        for profile in component.spec.profiles
        if profile.phase == Phase.DECODE
    ]
    assert all((profile.size("batch") is not None) == (profiles == "specialized") for profile in decode)
    divide = DIVISIONS["all outside" if weights == "external" else "inside"]
    with patch("ditto.runtime.reference.run", partial(run_in_parts, divide=divide)):
        session = open_session(tree, "reference")
        pixels = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(2))
        features = torch.stack(session.embeddings([EncoderItem({"input": image}) for image in pixels]))
        torch.testing.assert_close(features, image_features(model, pixels), rtol=1e-4, atol=1e-4)
        first, vocabulary = session.tokens, session.tokens.vocab_size
        rows = range(vocabulary, vocabulary + features.shape[1])
        prompts = ((5, 9, 17), (8, 3, 44, 90, 21))
        requests = [Request((*rows, *ids), features=image) for ids, image in zip(prompts, features, strict=True)]
        answers = generate(session, requests, NEW_TOKENS)
    for ids, image, answer in zip(prompts, image_features(model, pixels), answers, strict=True):
        wanted = greedy(model, ids, image)
        end = next((number + 1 for number, token in enumerate(wanted) if token in first.end), NEW_TOKENS)
        assert answer.ids == wanted[:end]


def test_stated_settings_win_over_the_preset_in_any_order():
    builder = LlmBuilder.from_model(llama())
    for made in (
        builder.with_optimize("latency").with_weights("embedded").with_tuning("none"),
        builder.with_tuning("none").with_weights("embedded").with_optimize("latency"),
    ):
        settings = made.build_settings
        assert (settings.weights, settings.engines) == ("embedded", "separate")
        assert (settings.profiles, settings.tuning) == ("specialized", "none")


@pytest.mark.parametrize(
    ("target", "settings", "present", "wanted"),
    [
        ("tensorrt-rtx", {}, None, "none"),
        ("tensorrt-rtx", {}, (9, 0), "9.0"),
        ("tensorrt-rtx", {}, (8, 9), "none"),
        ("tensorrt-rtx", {"compute_capabilities": ("9.0",)}, None, "9.0"),
        ("tensorrt-rtx", {"compute_capabilities": ("8.9",)}, (9, 0), "none"),
        ("tensorrt-rtx", {"compute_capabilities": ("8.9", "9.0")}, (9, 0), "none"),
        ("tensorrt", {}, (9, 0), "none"),
    ],
)
def test_automatic_tuning_is_that_of_the_named_or_present_gpu(monkeypatch, target, settings, present, wanted):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: present)
    assert target_of(target).tuned_for(BuildSettings(**PRESETS["latency"], **settings)) == wanted
    assert TUNINGS.keys() == {"9.0"}


def test_tuning_of_an_unmeasured_gpu_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"target tensorrt-rtx does not support tuning 8\.9") as caught:
        LlmBuilder.from_model(llama()).with_target("tensorrt-rtx").with_tuning("8.9").build(tmp_path / "tree")
    assert "--tuning none or auto or 9.0" in str(caught.value)


@pytest.mark.parametrize(
    "setting", [("weights", "external"), ("engines", "separate"), ("profiles", "specialized"), ("tuning", "9.0")]
)
def test_tensorrt_llm_runs_portable_engines_only(setting, tmp_path):
    builder = LlmBuilder.from_model(llama()).with_target("trtllm")
    name, value = setting
    with pytest.raises(ConfigError, match=f"target trtllm does not support {name} {value}"):
        getattr(builder, f"with_{name}")(value).build(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
