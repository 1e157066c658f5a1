"""With the patches, torch.export gives what it gives without them; torch is its own reference_outputs."""

from __future__ import annotations

import importlib
from contextlib import nullcontext

import pytest
import torch
from torch import fx
from torch._C import DispatchKey
from torch._dispatch.python import enable_python_dispatcher
from torch.export import Dim
from torch.fx.experimental import proxy_tensor
from torch.nn.functional import linear

from ditto import LlavaModel, LlmBuilder
from ditto.capture import export
from ditto.capture.export_patches import TESTED, export_patches
from ditto.program import Program
from ditto.targets.registry import target
from tests.support.models import LLAVA_MODELS, TEXT_MODELS
from tests.support.programs import FunctionModule

CAPTURE = importlib.import_module("ditto.capture.export")
DYNAMIC = ({0: Dim("batch", min=1, max=8), 1: Dim("sequence", min=2, max=16)},)


def _exported(module, x, ways, dynamic=DYNAMIC):
    """What each node is and says of its result, exported with or without patches."""
    with ways(), torch.no_grad():
        program = torch.export.export(module.eval(), (x,), dynamic_shapes=dynamic, strict=False)
    return [
        (str(node.target), str(node.args), str(value.shape), value.dtype, str(value.stride()))
        for node in program.graph.nodes
        if isinstance(value := node.meta.get("val"), torch.Tensor)
    ]


PARAMETERS = {"w": torch.randn(5, 6), "b": torch.randn(5), "narrow": torch.randn(5, 6).half(), "short": torch.randn(3)}
LINEAR = {
    "rows": lambda p, x: linear(x[:, 0], p.w, p.b),
    "rows without bias": lambda p, x: linear(x[:, 0], p.w),
    "batches of rows": lambda p, x: linear(x, p.w, p.b),
    "batches of rows without bias": lambda p, x: linear(x, p.w),
    "batches of heads": lambda p, x: linear(x[:, :, None], p.w, p.b),
    "another order in memory": lambda p, x: linear(x.transpose(0, 1), p.w, p.b),
    "strides of zero": lambda p, x: linear(x[:, :, None].expand(-1, -1, 3, -1), p.w),
    "a vector": lambda p, x: linear(x[0, 0], p.w, p.b),
    "a weight that is a vector": lambda p, x: linear(x, p.w[0]),
    "a weight of another dtype": lambda p, x: linear(x, p.narrow),
    "a bias to spread": lambda p, x: linear(x[:, 0], p.w, p.b[:1]),
    "a weight that depends on the input": lambda p, x: linear(x, x[0]),
}


@pytest.mark.parametrize("case", LINEAR)
def test_linear_layers_have_the_results_that_torch_finds(case):
    module, x = FunctionModule(LINEAR[case], parameters=PARAMETERS), torch.randn(3, 4, 6)
    assert _exported(module, x, export_patches) == _exported(module, x, nullcontext)


@pytest.mark.parametrize(
    "function",
    [
        lambda p, x: linear(x, p.w[:, :4]),
        lambda p, x: linear(x, p.w, p.short),
        lambda p, x: linear(x.transpose(1, 2), p.w),
        lambda p, x: linear(x[0, 0, 0], p.b),
    ],
    ids=["widths", "bias", "a width that varies", "no width"],
)
def test_what_torch_refuses_it_refuses_in_the_same_words(function):
    messages = []
    for ways in (export_patches, nullcontext):
        with pytest.raises(Exception) as caught:
            _exported(FunctionModule(function, parameters=PARAMETERS), torch.randn(3, 4, 6), ways)
        messages.append((type(caught.value), str(caught.value).splitlines()[0]))
    assert messages[0] == messages[1]


def test_numbers_are_computed_as_ever():
    x, weight, bias = torch.randn(2, 3, 6), PARAMETERS["w"], PARAMETERS["b"]
    wanted = linear(x, weight, bias)
    with export_patches(), enable_python_dispatcher():
        assert torch.equal(linear(x, weight, bias), wanted)


TEXTS = ("llama with attention and MLP biases", "phi3 with a window")
GEMMA = "gemma2 with soft-caps and windows"
MODELS = {
    **{name: lambda name=name: LlmBuilder.from_model(TEXT_MODELS[name]()) for name in (*TEXTS, GEMMA)},
    **{name: lambda name=name: LlavaModel.from_model(LLAVA_MODELS[name]()).vision for name in ("siglip",)},
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_captured_as_without(name, monkeypatch):
    part = MODELS[name]().part(target("tensorrt-rtx"))
    wanted = (part.wrapper, part.inputs, part.output_names, part.prefix, part.dtype)
    short = _told(export(*wanted))
    monkeypatch.setattr(CAPTURE, "export_patches", nullcontext)
    assert short == _told(export(*wanted))


def _told(program: Program):
    """All that later rooms read of a program. Nodes are told by their order: torch counts those that it drops, too."""
    order = {node: f"node {number}" for number, node in enumerate(program.graph.nodes)}
    return [
        (
            node.op,
            str(program.parameters.get(str(node.target), node.target)),
            str(fx.map_arg((node.args, node.kwargs), order.__getitem__)),
            str(program.spec(node)) if isinstance(node.meta.get("val"), torch.Tensor) else None,
            program.place(node),
        )
        for node in program.graph.nodes
    ]


def _state():
    return (
        torch.ops.aten.linear.default.py_kernels.get(DispatchKey.CompositeImplicitAutograd),
        proxy_tensor._extract_tensor_metadata,
        torch.fx.proxy.CapturedTraceback,
    )


def test_torch_is_as_it_was_even_after_an_error():
    before = _state()
    with pytest.raises(ValueError, match="inside"), export_patches():
        assert all(now is not earlier for now, earlier in zip(_state(), before, strict=True))
        raise ValueError("inside")
    assert _state() == before


def test_patches_within_patches_change_nothing():
    before = _state()
    with export_patches():
        patched = _state()
        with export_patches():
            pass
        assert _state() == patched
    assert _state() == before


@pytest.mark.parametrize("version", ["2.12.1", "2.14.0+cu130", "2.130.0", "3.0.0"])
def test_other_versions_are_left_alone(version, monkeypatch):
    monkeypatch.setattr(torch, "__version__", version)
    before = _state()
    with export_patches():
        assert _state() == before


def test_this_version_is_patched():
    """Otherwise the tests above compare torch with itself: see which versions a new torch is added to."""
    assert torch.__version__.startswith(TESTED)
