"""LLaVA's vision wrapper gives Hugging Face's image features, at every wall."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import pytest
import torch

from ditto.capture import export
from ditto.families.llava import LlavaModel
from ditto.network import check
from ditto.network.dims import evaluate as size_of
from ditto.passes import run_passes
from ditto.passes.spec import passes_of
from ditto.program import evaluate
from ditto.reference import RELATIVE_ERROR, Constants, relative_error, run
from ditto.rewrite import rewrite
from ditto.targets.registry import target
from tests.support.layers import emitted
from tests.support.models import LLAVA_MODELS, VISION, image_features
from tests.support.programs import operators

aten = torch.ops.aten
SIZES = (1, 3)


def _pixels(batch, dtype=torch.float32):
    return torch.randn(batch, 3, 28, 28, generator=torch.Generator().manual_seed(batch)).to(dtype)


@cache
def _story(name, dtype):
    """A vision tower on its way to a network. The program is rewritten in place; what it gave before is kept."""
    model = LLAVA_MODELS[name]().to(dtype)
    builder, chosen = LlavaModel.from_model(model).with_batch(4).vision, target("tensorrt-rtx")
    part = builder.part(chosen)
    parameter = dict(part.wrapper.named_parameters(remove_duplicate=False)).__getitem__
    program = export(part.wrapper, part.inputs, part.output_names, part.prefix, part.dtype)
    captured = [evaluate(program, {"input": _pixels(batch, dtype)}, parameter)[0] for batch in SIZES]
    counts = {name: report.applied for name, report in rewrite(program, part.sizes, part.positions).items()}
    (spec,) = chosen.specs(part, builder.build_settings)
    network = run_passes(chosen.lower(part, program, spec), passes_of(spec.passes))
    return SimpleNamespace(
        model=model,
        part=part,
        parameter=parameter,
        captured=captured,
        rewritten=program,
        counts=counts,
        network=network,
    )


def _check_walls(name, dtype):
    told = _story(name, dtype)
    constants = Constants(told.network, told.part.tensors)
    for batch, captured in zip(SIZES, told.captured):
        given = {"input": _pixels(batch, dtype)}
        wanted = image_features(told.model, given["input"])
        with torch.no_grad():
            found = {"wrapper": told.part.wrapper(given["input"]), "captured": captured}
        (found["rewritten"],) = evaluate(told.rewritten, given, told.parameter)
        found["network"] = run(told.network, given, constants)["encoder_output"]
        for wall, features in found.items():
            assert features.shape == wanted.shape and features.dtype == dtype
            assert relative_error(features, wanted) < RELATIVE_ERROR[dtype], (wall, batch)


@pytest.mark.parametrize("name", LLAVA_MODELS)
def test_every_wall_gives_hugging_faces_features(name):
    _check_walls(name, torch.float32)


@pytest.mark.parametrize("name", ["last but one layer", "siglip"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_wall_rounds_as_hugging_face_does(name, dtype):
    _check_walls(name, dtype)


@pytest.mark.parametrize("name", LLAVA_MODELS)
def test_only_the_layers_that_are_needed_are_built_each_with_one_attention(name):
    told = _story(name, torch.float32)
    left = operators(told.rewritten)
    chosen, last = told.model.config.vision_feature_layer, VISION["num_hidden_layers"]
    layers = max(layer % (last + 1) for layer in (chosen if isinstance(chosen, list) else [chosen]))
    assert left.count(torch.ops.ditto.attention.default) == layers
    assert aten.scaled_dot_product_attention.default not in left
    assert told.counts["fuse projections"] == 3 * layers
    assert told.counts["rope of halves"] == told.counts["choose last tokens early"] == 0


@pytest.mark.parametrize("name", LLAVA_MODELS)
def test_tensorrt_agrees_with_every_shape_and_dtype(name):
    told = _story(name, torch.float32)
    check(told.network)
    emitted(told.network, told.part.tensors)
    spec = told.network.value(told.network.outputs["encoder_output"]).spec
    assert tuple(size_of(dim, {"batch": 3}) for dim in spec.shape) == tuple(told.captured[1].shape)


def test_positions_of_patches_are_folded_into_a_constant():
    network = _story("last layer", torch.float32).network
    assert "Gather" not in {type(node.layer).__name__ for node in network.nodes}
