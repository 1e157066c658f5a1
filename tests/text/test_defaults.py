"""A model's generation defaults do what they do in Hugging Face's `generate`, one by one and together."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from attrs import evolve
from loguru import logger
from transformers import GenerationConfig

from ditto import EngineTree, LlmBuilder
from ditto.builders.generation import module_defaults
from ditto.errors import ConfigError, PromptError
from ditto.runtime import GREEDY, Request, Sampling, generate, open_session
from ditto.runtime.sampling import candidates
from ditto.runtime.session import LlmRunner
from ditto.text.defaults import GenerationDefaults, warn_of_idle_options
from ditto.text.penalties import Penalties
from tests.support.models import TRANSFORMERS_5, llama, llava

PROMPTS = [[5, 9, 17, 33, 8, 100, 41], [77], [64] * 13]
END = 60
GREEDY_SETTINGS = {
    "repetition_penalty": {"repetition_penalty": 1.7},
    "a bonus for repetition": {"repetition_penalty": 0.3},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 2},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 3.0},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 1},
    "bad_words_ids": {"bad_words_ids": [[19], [34, 119], [86, 86], [60]]},
    "sequence_bias": {"sequence_bias": [[[60], -20.0], [[9, 17], 9.0], [[17], 4.0]]},
    "min_length": {"min_length": 9, "sequence_bias": [[[END], 9.0]]},
    "min_new_tokens": {"min_new_tokens": 5, "sequence_bias": [[[END], 9.0]]},
    "min_new_tokens and min_length": {"min_new_tokens": 2, "min_length": 60, "sequence_bias": [[[END], 9.0]]},
    "forced_bos_token_id": {"forced_bos_token_id": 11},
    "forced_eos_token_id": {"forced_eos_token_id": 12},
    "several forced_eos_token_id": {"forced_eos_token_id": [END, 12]},
    "remove_invalid_values": {"remove_invalid_values": True},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": (3, 1.9)},
    "suppress_tokens": {"suppress_tokens": list(range(40, 100))},
    "begin_suppress_tokens": {"begin_suppress_tokens": list(range(20, 110))},
    "renormalize_logits": {"renormalize_logits": True, "repetition_penalty": 1.2},
    "watermarking_config": {"watermarking_config": {"bias": 4.0, "seeding_scheme": "selfhash"}},
    "what is as always": {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_beams": 1, "guidance_scale": 1.0},
    "several": {
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 3,
        "suppress_tokens": [60, 61],
        "begin_suppress_tokens": [7, 8],
        "min_new_tokens": 4,
        "bad_words_ids": [[9, 9]],
        "sequence_bias": [[[END], 6.0]],
    },
}
SAMPLING_SETTINGS = {
    "nothing but do_sample": {},
    "temperature": {"temperature": 0.4},
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.6},
    "min_p": {"min_p": 0.2},
    "typical_p": {"typical_p": 0.5},
    "epsilon_cutoff": {"epsilon_cutoff": 0.02},
    "eta_cutoff": {"eta_cutoff": 0.02},
    "temperature, top_k, top_p and min_p": {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
    "renormalize_logits": {"renormalize_logits": True, "top_k": 9},
    "watermarking_config": {"watermarking_config": {"bias": 4.0}, "top_k": 9},
    "a penalty": {"repetition_penalty": 1.5, "temperature": 0.8},
    "a penalty, and a cut behind it": {"repetition_penalty": 1.5, "temperature": 0.8, "min_p": 0.1, "top_k": 30},
    **({"top_h": {"top_h": 0.4}} if TRANSFORMERS_5 else {}),
}


@pytest.fixture(scope="module")
def model():
    return llama()


@pytest.fixture(scope="module", params=["trtllm", "tensorrt-rtx"])
def tree(request, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("tree") / "tree"
    return LlmBuilder.from_model(model).with_batch(3).with_target(request.param).build(out)


def with_settings(model, settings, end=END):
    """The model's own defaults in place of any other; what a manifest would keep of them."""
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=0, **settings)
    return module_defaults(model)


def kept(found):
    """Without the ids that a manifest keeps elsewhere; forced ones are settings."""
    special = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: value for name, value in found.items() if name not in special}


def opened(tree, found, end=END):
    """A tree whose model has these defaults."""
    tokens = evolve(tree.manifest.tokens, end=[end])
    return EngineTree(tree.root, evolve(tree.manifest, generation=kept(found), tokens=tokens))


def hugging_face(model, prompt, count, **more):
    ids = torch.tensor([prompt])
    with torch.no_grad():
        return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, **more)


def answers(tree, count, prompts=PROMPTS, sampling=GREEDY):
    defaults = GenerationDefaults.of(tree)
    made = [defaults.processed(prompt, count, sampling) for prompt in prompts]
    requests = [Request(tuple(prompt), process=process) for prompt, (process, _) in zip(prompts, made, strict=True)]
    return [answer.ids for answer in generate(open_session(tree, "reference"), requests, count, made[0][1])]


@pytest.mark.parametrize("name", GREEDY_SETTINGS)
def test_answers_are_those_of_hugging_face(name, model, tree):
    found = with_settings(model, GREEDY_SETTINGS[name])
    wanted = [tuple(hugging_face(model, prompt, 14)[0, len(prompt) :].tolist()) for prompt in PROMPTS]
    assert answers(opened(tree, found), 14) == wanted
    plain = opened(tree, {})
    if name not in ("remove_invalid_values", "what is as always"):
        assert answers(plain, 14) != wanted  # the setting shows


@pytest.mark.parametrize("name", SAMPLING_SETTINGS)
def test_chances_are_those_of_hugging_face(name, model):
    """Of every token, after the tokens that Hugging Face drew."""
    found = with_settings(model, {"do_sample": True, **SAMPLING_SETTINGS[name]})
    defaults = GenerationDefaults(kept(found), 128, (END,))
    sampling = defaults.sampling()
    assert not sampling.is_greedy
    for prompt in PROMPTS:
        torch.manual_seed(3)
        made = hugging_face(model, prompt, 6, output_scores=True, output_logits=True, return_dict_in_generate=True)
        tokens = made.sequences[0, len(prompt) :].tolist()
        process, left = defaults.processed(prompt, 6, sampling)
        for index, (scores, logits) in enumerate(zip(made.scores, made.logits, strict=True)):
            row = logits[0] if process is None else process(tokens[:index], logits[0])
            probabilities, ids = candidates(row[None], left)
            chances = torch.zeros(1, 128).scatter(-1, ids, probabilities)
            assert torch.allclose(chances, scores.softmax(-1), atol=1e-6)


def test_defaults_without_processors_leave_the_fast_path_alone():
    for settings in ({}, {"repetition_penalty": 1.0, "min_length": 0}, {"temperature": 0.5, "top_p": 0.5}):
        assert GenerationDefaults(settings, 128, (END,)).processed([5, 6], 4, GREEDY) == (None, GREEDY)
        sampling = Sampling(temperature=0.5)
        assert GenerationDefaults(settings, 128, (END,)).processed([5, 6], 4, sampling) == (None, sampling)


@pytest.mark.parametrize("lag", [1, 3])
def test_a_host_that_lags_behind_waits_for_what_it_has_to_know(lag, model, tree, monkeypatch):
    found = with_settings(model, GREEDY_SETTINGS["several"])
    wanted = [tuple(hugging_face(model, prompt, 9)[0, len(prompt) :].tolist()) for prompt in PROMPTS]
    monkeypatch.setattr(LlmRunner, "lookahead", lag)
    assert answers(opened(tree, found), 9) == wanted


def test_penalties_of_an_answer_take_the_place_of_the_models_own(model, tree):
    found = with_settings(model, {"repetition_penalty": 1.7, "no_repeat_ngram_size": 2})
    tree = opened(tree, found)
    defaults = GenerationDefaults.of(tree)
    penalties = Penalties(repetition_penalty=2, min_tokens=9, logit_bias={END: 9.0})
    for prompt in PROMPTS:
        process, _ = defaults.processed(prompt, 14, GREEDY, penalties)
        request = Request(tuple(prompt), process=process)
        (made,) = generate(open_session(tree, "reference"), [request], 14)
        more = {"repetition_penalty": 2.0, "min_new_tokens": 9, "sequence_bias": {(END,): 9.0}}
        assert made.ids == tuple(hugging_face(model, prompt, 14, **more)[0, len(prompt) :].tolist())
    off, _ = GenerationDefaults({"repetition_penalty": 1.7}, 128, (END,)).processed(
        [5], 4, GREEDY, Penalties(repetition_penalty=1)
    )
    assert off is None


def test_frequency_and_presence_count_the_answer_before_temperature_and_cuts():
    settings = {"do_sample": True, "min_p": 0.05, "temperature": 0.5}
    penalties = Penalties(frequency_penalty=0.75, presence_penalty=-1.25, repetition_penalty=1.5)
    defaults = GenerationDefaults(settings, 128, (END,))
    prompt, made, logits = [5, 9, 9], [9, 7, 9], torch.linspace(-4, 4, 128)
    process, left = defaults.processed(prompt, 8, defaults.sampling(), penalties)
    wanted = logits.clone()
    for token in {*prompt, *made}:
        wanted[token] = wanted[token] * 1.5 if wanted[token] < 0 else wanted[token] / 1.5
    wanted[9] += -2 * 0.75 + 1.25
    wanted[7] += -0.75 + 1.25
    wanted = wanted / 0.5
    chances = wanted.softmax(-1)
    wanted[chances < 0.05 * chances.max()] = -torch.inf
    found = process(made, logits)
    assert torch.allclose(found.softmax(-1), wanted.softmax(-1), atol=1e-6) and left == Sampling()
    alone, _ = GenerationDefaults({}, 128, (END,)).processed(prompt, 8, GREEDY, Penalties(frequency_penalty=0.75))
    assert torch.equal(alone([], logits), logits)


def test_a_fault_is_of_the_penalties_where_the_model_states_none(monkeypatch):
    monkeypatch.setattr(Penalties, "counted", lambda *_: 1 / 0)
    process, _ = GenerationDefaults({}, 128, (END,)).processed([5], 4, GREEDY, Penalties(presence_penalty=1))
    with pytest.raises(ConfigError, match="penalties cannot be applied: division by zero"):
        process([], torch.zeros(128))


def test_image_tokens_are_seen_as_hugging_face_sees_them():
    """A penalty for what the prompt has falls on the image token, not on the ids that stand for an image's rows."""
    model = llava()
    with_settings(model, {"encoder_no_repeat_ngram_size": 1, "repetition_penalty": 4.0}, end=2)
    defaults = GenerationDefaults(kept(module_defaults(model)), 128, (2,))
    prompt = [5, *[127] * 16, 9]
    pixels = torch.randn(1, 3, 28, 28)
    made = hugging_face(
        model, prompt, 5, pixel_values=pixels, output_scores=True, output_logits=True, return_dict_in_generate=True
    )
    tokens = made.sequences[0, len(prompt) :].tolist()
    process, _ = defaults.processed(prompt, 5, GREEDY)
    for index, (scores, logits) in enumerate(zip(made.scores, made.logits, strict=True)):
        assert torch.equal(process(tokens[:index], logits[0]), scores[0])
        assert scores[0, 127] == -torch.inf


UNSUPPORTED = [
    {"num_beams": 4},
    {"num_beams": "many"},
    {"penalty_alpha": 0.6},
    {"guidance_scale": 1.5},
    {"token_healing": True},
    {"max_time": 3.0},
    {"num_return_sequences": 2},
    {"dola_layers": "high"},
    {"force_words_ids": [[5]]},
    {"diversity_penalty": 0.5},
]


def fake(settings):
    tokens = SimpleNamespace(vocab_size=128, end=[END])
    return SimpleNamespace(root="OUT", manifest=SimpleNamespace(tokens=tokens, generation=settings))


@pytest.mark.parametrize("settings", UNSUPPORTED, ids=str)
def test_what_is_not_supported_is_refused_by_name(settings):
    ((name, value),) = settings.items()
    with pytest.raises(
        ConfigError, match=re.escape(f"defaults ask for {name} {value}, which is not supported")
    ) as caught:
        GenerationDefaults.of(fake(settings))
    assert "--no-generation-defaults" in str(caught.value)
    assert GenerationDefaults.of(fake(settings), wanted=False).settings == {}


def test_every_setting_of_transformers_is_known_to_be_honoured_refused_or_without_effect():
    """A setting that a later transformers brings has to be put into one of these."""
    from ditto.text import defaults

    honoured = {*defaults._PROCESSORS, *defaults._WARPERS, "do_sample", "temperature", "top_k", "top_p"}
    honoured |= {"max_length", "max_new_tokens", "stop_strings"}
    tokens = {"bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id"}
    beams_or_output = {"early_stopping", "length_penalty", "low_memory", "return_dict_in_generate"}
    beams_or_output |= {f"output_{name}" for name in ("attentions", "hidden_states", "logits", "scores")}
    cache = {"cache_config", "cache_implementation", "max_cache_len", "prefill_chunk_size", "return_legacy_cache"}
    cache |= {"use_cache", "compile_config", "disable_compile", "continuous_batching_config", "generation_kwargs"}
    same_answers = {name for name in GenerationConfig().to_dict() if "assistant" in name or "lookbehind" in name}
    same_answers |= {"prompt_lookup_num_tokens", "max_matching_ngram_size", "use_mtp", "speculation_type"}
    known = honoured | set(defaults._UNSUPPORTED) | tokens | beams_or_output | cache | same_answers
    own = {name for name in GenerationConfig().to_dict() if not name.startswith("_")} - {"transformers_version"}
    assert own - known == set()


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": -1.0},
        {"bad_words_ids": []},
        {"bad_words_ids": [[500]]},
        {"sequence_bias": [[[1000], 2.0]]},
        {"suppress_tokens": "all"},
        {"no_repeat_ngram_size": "x"},
        {"a setting of a later transformers": 1},
    ],
    ids=str,
)
def test_settings_that_hugging_face_refuses_are_refused(settings, monkeypatch):
    monkeypatch.setattr("ditto.text.defaults._PROCESSORS", tuple(settings))
    defaults = GenerationDefaults(settings, 128, (END,))
    with pytest.raises(ConfigError, match="defaults cannot be honoured: ") as caught:
        process, _ = defaults.processed([5, 6], 4, GREEDY)
        process([], torch.zeros(128))
    assert "--no-generation-defaults" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("stop_strings", value) for value in (5, True, [5], ["a", None], [["a"]], {"a": 1}, [""], "", [])),
        *(("do_sample", value) for value in (1, 0, "yes", [True])),
    ],
)
def test_values_of_another_kind_are_refused(name, value):
    """What Python takes for true samples in Hugging Face, and an empty stop string ends the answer at once."""
    with pytest.raises(ConfigError, match=f"state {name}") as caught:
        GenerationDefaults.of(fake({name: value}))
    assert "--no-generation-defaults" in str(caught.value)


OWN = {"do_sample": True, "temperature": 0.5, "top_p": 0.8}


@pytest.mark.parametrize(
    ("settings", "asked", "wanted"),
    [
        ({}, {}, GREEDY),
        ({"temperature": 0.5, "top_p": 0.8}, {}, GREEDY),  # for those who sample
        ({}, {"temperature": 0.7}, Sampling(temperature=0.7, top_k=50)),
        ({"top_k": 7, "top_p": 0.8}, {"temperature": 0.7}, Sampling(temperature=0.7, top_k=7, top_p=0.8)),
        ({}, {"top_k": 5}, Sampling(top_k=5)),
        ({}, {"top_p": 0.5}, Sampling(top_k=50, top_p=0.5)),
        ({"do_sample": True}, {}, Sampling(top_k=50)),
        (OWN, {}, Sampling(temperature=0.5, top_p=0.8, top_k=50)),
        (OWN, {"top_k": 0, "seed": 4}, Sampling(temperature=0.5, top_p=0.8, seed=4)),
        (OWN, {"temperature": 1.5}, Sampling(temperature=1.5, top_p=0.8, top_k=50)),
        (OWN, {"temperature": 0.0}, GREEDY),
    ],
)
def test_what_is_asked_for_goes_before_the_models_defaults(settings, asked, wanted):
    assert GenerationDefaults(settings, 128, ()).sampling(**asked) == wanted
    assert GenerationDefaults(settings, 128, ()).sampling(**asked).seed == asked.get("seed", 0)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"seed": 3}, "--seed has no effect: the most likely token is taken."),
        ({"top_k": 0}, "--top-k has no effect"),
        ({"top_p": 1.0}, "--top-p has no effect"),
        ({"temperature": 0.0, "top_k": 5, "seed": 3}, "--top-k and --seed have no effect"),
        ({"temperature": 0.0}, ""),
    ],
)
def test_flags_without_effect_do_not_switch_sampling_on_and_are_named(asked, told):
    lines: list[str] = []
    logger.enable("ditto")
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    try:
        sampling = GenerationDefaults({}, 128, ()).sampling(**asked)
        assert sampling is GREEDY
        warn_of_idle_options(sampling, asked)
        warn_of_idle_options(Sampling(), asked)
    finally:
        logger.remove(sink)
        logger.disable("ditto")
    assert ("".join(lines).startswith(told) and lines) if told else not lines


@pytest.mark.parametrize(
    ("asked", "own"),
    [
        ({"temperature": -1.0}, {}),
        ({"temperature": float("nan")}, {}),
        ({"temperature": float("inf")}, {}),
        ({"top_p": 0.0}, {}),
        ({"top_p": 1.5}, {}),
        ({"top_k": -1}, {}),
        ({"seed": -1}, {}),
        ({}, {"do_sample": True, "temperature": -1.0}),
        ({}, {"do_sample": True, "top_p": 2.0}),
        ({}, {"do_sample": True, "top_k": 2.5}),
        ({}, {"do_sample": True, "temperature": "warm"}),
    ],
)
def test_sampling_out_of_range_is_refused(asked, own):
    with pytest.raises(ConfigError, match="out of range|not all numbers"):
        GenerationDefaults(own, 128, ()).sampling(**asked)


@pytest.mark.parametrize(
    ("settings", "length", "wanted"),
    [
        ({}, 10, 128),
        ({"max_length": 20}, 10, 128),  # what transformers 4 wrote where nobody had said anything
        ({"max_new_tokens": 96}, 10, 96),
        ({"max_new_tokens": 900}, 10, 200),
        ({"max_length": 40}, 10, 30),
        ({"max_length": 40, "max_new_tokens": 7}, 10, 7),
    ],
)
def test_answers_are_as_long_as_the_model_has_them(settings, length, wanted):
    assert GenerationDefaults(settings, 128, ()).new_tokens(1, length, 200) == wanted


def test_prompts_longer_than_the_models_limit_are_refused():
    with pytest.raises(PromptError, match="Prompt 2 has 40 tokens; the model's generation defaults allow 30"):
        GenerationDefaults({"max_length": 30}, 128, ()).new_tokens(2, 40, 200)


@pytest.mark.parametrize(("stated", "wanted"), [(None, ()), ("a", ("a",)), (["a", "b"], ("a", "b"))])
def test_the_models_own_stop_strings(stated, wanted):
    assert GenerationDefaults({"stop_strings": stated}, 128, ()).stops == wanted
