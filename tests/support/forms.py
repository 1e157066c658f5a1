"""What every form of a product or attention has to do, and Ditto's networks of LLaVA-1.5-7B's shape to find them in."""

from __future__ import annotations

from copy import copy

import torch
from attrs import evolve

from benchmarks.forms import Held
from benchmarks.gpu_limits import compiled
from ditto import LlavaModel, LlmBuilder, VisionBuilder
from ditto.bindings import load_native
from ditto.network.dims import evaluate
from ditto.network.layers import Attention, MatrixMultiply
from ditto.reference import TOLERANCE, Constants, run
from ditto.targets.tensorrt.tuning import H200, TUNINGS
from tests.support.describing import engines_of

CPU = torch.device("cpu")


def as_if_large(patch):
    """Give matrices of tiny models the forms that those of large ones have: parts and blocks."""
    small = evolve(H200, split_k_shortest=8, column_block=16)
    patch.setitem(TUNINGS, "9.0", small)


def check_computes(case, name, wanted):
    """A form computes what is wanted of a case and what was drawn for it, and so does PyTorch."""
    torch.manual_seed(3)
    form, drawn = case.forms[name], case.draw(2, CPU)
    made = run(form.network, form.inputs(drawn), Constants(form.network, Held(drawn)))["made"]
    close = TOLERANCE[torch.float32]
    for found in (form.seen(made, drawn), case.by_torch(drawn)):
        torch.testing.assert_close(found, wanted(case, drawn), rtol=close["rtol"], atol=close["atol"])


def check_compiles(case, name, directory):
    """TensorRT-RTX takes a form."""
    path, source = directory / "form.engine", Held(case.draw(2, CPU))
    size = compiled(case.forms[name].network, source, case.profile(2), load_native("tensorrt_rtx"), path)
    assert size == path.stat().st_size > 0


def check_differ(cases):
    """A form that is written as another would measure nothing new."""
    for case in cases:
        networks = [
            ([*form.network.inputs.values()], [(node.layer, node.inputs) for node in form.network.nodes])
            for form in case.forms.values()
        ]
        for index, network in enumerate(networks):
            assert network not in networks[:index], [*case.forms][index]


def described(source):
    """Ditto's networks of the tower, of prompts and of single tokens, by task."""
    encoder = LlavaModel.encoder(source.config)
    common = {"source": source, "target": "tensorrt-rtx", "max_batch_size": 4}
    vision = VisionBuilder(**common, family="llava", inputs=encoder.inputs, wrap=encoder.module).with_batch(4)
    llm = LlmBuilder(**common, prompt_rows=encoder.rows)
    networks = {}
    for builder in (vision, llm):
        for name, engine in engines_of(builder.with_optimize("latency").with_tuning("9.0")).items():
            networks[{"llm": "prefill", "llm-decode": "decode"}.get(name, name)] = engine.network
    return networks


def kernels(network, sizes):
    """Products and attention layers with the shapes that they read."""
    return [
        (node.layer, *(tuple(evaluate(dim, sizes) for dim in network.value(name).spec.shape) for name in node.inputs))
        for node in network.nodes
        if isinstance(node.layer, (MatrixMultiply, Attention))
    ]


def with_input_sizes(network, sizes):
    """A network whose inputs have these sizes: where one says `batch*sequence` alone, no other says what these are."""
    result = copy(network)
    result.inputs = {
        name: spec.with_shape(tuple(evaluate(dim, sizes) for dim in spec.shape))
        for name, spec in network.inputs.items()
    }
    return result
