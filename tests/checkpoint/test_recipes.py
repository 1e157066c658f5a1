"""Parameters that are stored in slices are put together in the slices' order, or refused."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from benchmarks.tiny_models import tiny_model
from ditto import LlmBuilder
from ditto.builders import Pretrained
from ditto.checkpoint import CheckpointIndex, CheckpointReader, Recipe, match_names
from ditto.checkpoint.recipes import Stacked, Transposed, places_of, recipe_of
from ditto.errors import CheckpointError
from ditto.network.weight import Literals, resolve
from ditto.runtime import Request, generate, open_session
from tests.support.families import FAMILIES, WITH_TORCHVISION
from tests.support.models import TRANSFORMERS_5

PLACE = "layers.3.experts.gate_up_proj"


class MergeModulelist:
    dim = 0


class Concatenate:
    dim = 1


class Chunk:
    dim = 0


class Transpose:
    def __init__(self, check_dims=False):
        self.dim0, self.dim1, self.check_dims = 1, 2, check_dims


def _rule(patterns, *operations, targets=()):
    made = [operation() for operation in operations]
    return SimpleNamespace(source_patterns=list(patterns), target_patterns=list(targets), operations=made)


def _never(name):
    return False


def _names(kind, numbers):
    return [f"layers.3.experts.{number}.{kind}.weight" for number in numbers]


def test_slices_are_ordered_by_their_numbers():
    numbers = list(range(12))
    random.Random(0).shuffle(numbers)
    names = {"*.gate": _names("gate", numbers), "*.up": _names("up", sorted(numbers))}
    recipe = recipe_of(_rule(names, MergeModulelist, Concatenate), PLACE, names, "here", _never)
    assert recipe.slices == tuple(
        (f"layers.3.experts.{number}.gate.weight", f"layers.3.experts.{number}.up.weight") for number in range(12)
    )


REFUSED = {
    "another form": (_rule(["a"], Chunk), {"a": ["x.0"]}, "`x.0` is stored in another form than the model's"),
    "joined alone": (_rule(["a", "b"], Concatenate), {"a": ["x.0"], "b": ["y.0"]}, "is stored in another form"),
    "a slice is missing": (
        _rule(["a"], MergeModulelist),
        {"a": _names("up", [0, 1, 3])},
        "is stored in slices, and not all of them are there: 3, e.g. `layers.3.experts.3.up.weight`",
    ),
    "the first is missing": (_rule(["a"], MergeModulelist), {"a": _names("up", [1, 2])}, "not all of them are there"),
    "one kind is missing": (
        _rule(["a", "b"], MergeModulelist, Concatenate),
        {"a": _names("up", [0, 1])},
        "is stored in slices, and 2 are of `a`, 0 are of `b`",
    ),
}


@pytest.mark.parametrize(("rule", "names", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_whole_set_of_slices_is_refused(rule, names, message):
    with pytest.raises(CheckpointError) as raised:
        recipe_of(rule, PLACE, names, "here", _never)
    assert message in str(raised.value)


# transformers 5 alone stores experts one by one and holds them in one parameter.
MIXTURES = ("mixtral", "qwen3_moe", "deepseek_v3") if TRANSFORMERS_5 else ()


@pytest.mark.parametrize("model_type", MIXTURES)
def test_a_saved_mixture_is_what_transformers_loads(model_type, tmp_path):
    model = tiny_model(model_type)
    model.save_pretrained(tmp_path)
    reader = CheckpointReader(CheckpointIndex.open(tmp_path))
    names = match_names(model, reader)
    stored = reader.index.tensors
    recipes = 0
    for name, parameter in model.named_parameters(remove_duplicate=False):
        source = names[name]
        if isinstance(source, Recipe):
            weight = source.weight(lambda each, like: Literals().keep(reader.tensor(each)), parameter)
            assert weight.shape == tuple(parameter.shape)
            values = [torch.cat([reader.tensor(each) for each in slices]) for slices in source.slices]
            assert torch.equal(torch.stack(values), parameter)
            recipes += 1
        else:
            assert torch.equal(reader.tensor(source), parameter), (name, stored[source])
    assert recipes > 0


@pytest.mark.parametrize("layout", ["combined", "separate"] if TRANSFORMERS_5 else [])
def test_a_mixture_on_disk_answers_as_hugging_face_does(layout, tmp_path):
    model = tiny_model("mixtral")
    model.save_pretrained(tmp_path / "model")
    ids = [5, 9, 33, 71, 127, 8, 8, 41]
    wanted = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False, pad_token_id=0)
    builder = LlmBuilder.from_pretrained(str(tmp_path / "model")).with_target("tensorrt-rtx").with_engines(layout)
    builder = builder.with_max_seq_len(32).with_max_input_len(16).with_weights("external")
    tree = builder.build(tmp_path / "tree")
    assert list(generate(open_session(tree, "reference"), [Request(tuple(ids))], 8)[0].ids) == wanted[0, 8:].tolist()
    assert not tree.manifest.unused


def test_a_recipe_resolves_to_its_slices_in_order():
    literals = Literals()
    parts = {name: torch.randn(2, 3) for name in "abcd"}
    weight = Stacked((("a", "b"), ("c", "d"))).weight(
        lambda name, like: literals.keep(parts[name]), torch.empty(2, 4, 3)
    )
    wanted = torch.stack([torch.cat([parts["a"], parts["b"]]), torch.cat([parts["c"], parts["d"]])])
    assert torch.equal(resolve(weight, None, literals), wanted)


def test_a_tensor_is_transposed_unless_it_fits_and_the_rule_looks():
    names = {"a": ["x"]}
    for looks, fits, wanted in ((False, True, True), (True, False, True), (True, True, False)):
        found = recipe_of(_rule(names, lambda: Transpose(looks)), PLACE, names, "here", lambda name: fits)  # noqa: B023
        assert found == (Transposed("x", (1, 2)) if wanted else "x")


def test_a_transposed_recipe_resolves_to_its_tensor():
    literals, stored = Literals(), torch.randn(2, 3, 4)
    shapes = []

    def weight_of(name, like):
        shapes.append(tuple(like.shape))
        return literals.keep(stored)

    weight = Transposed("x", (1, 2)).weight(weight_of, torch.empty(2, 4, 3))
    assert shapes == [(2, 3, 4)]
    assert torch.equal(resolve(weight, None, literals), stored.transpose(1, 2))


def test_a_chunk_is_a_part_of_its_tensor():
    rule = _rule(["qkv"], Chunk, targets=["q_proj", "k_proj", "v_proj"])
    assert places_of(rule, "layers.1.q_proj.weight") == [f"layers.1.{name}_proj.weight" for name in "qkv"]
    recipe = recipe_of(rule, "layers.1.k_proj.weight", {"qkv": ["layers.1.qkv.weight"]}, "here", _never)
    literals, stored, shapes = Literals(), torch.randn(6, 4), []

    def weight_of(name, like):
        shapes.append((name, tuple(like.shape)))
        return literals.keep(stored)

    weight = recipe.weight(weight_of, torch.empty(2, 4))
    assert shapes == [("layers.1.qkv.weight", (6, 4))]
    assert torch.equal(resolve(weight, None, literals), stored[2:4])


@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4 has other experts")
def test_experts_that_are_stored_transposed_are_what_transformers_loads(tmp_path):
    """As in the published files of Qwen3-VL with experts."""
    FAMILIES["qwen3_vl_moe"].save(tmp_path)
    file = tmp_path / "model.safetensors"
    stored = {name: t.transpose(1, 2) if ".experts." in name else t for name, t in load_file(file).items()}
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, file, {"format": "pt"})
    _check_loaded(tmp_path)


@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4 does not know the model")
def test_projections_that_are_stored_as_one_in_pairs_are_what_transformers_loads(tmp_path):
    """As in the published files of Kimi K2.5."""
    WITH_TORCHVISION["kimi_k25"].model(10).save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert any("wqkv" in name for name in stored) and not any(".q_proj" in name for name in stored if "vision" in name)
    _check_loaded(tmp_path)


def _check_loaded(tmp_path):
    """Ditto's weights of a checkpoint are those of transformers."""
    wanted = dict(AutoModelForImageTextToText.from_pretrained(tmp_path).named_parameters())
    loaded = Pretrained(str(tmp_path), "AutoModelForImageTextToText").load(torch.float32)
    for name, parameter in loaded.model.named_parameters():
        value = resolve(loaded.weights[id(parameter)], loaded.tensors, Literals())
        assert torch.equal(value, wanted[name]), name
