"""Capture of a module as a `Program` by torch.export, without decompositions and without its weights."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from ditto.arguments import TensorTypeHint
from ditto.capture import attention, experts
from ditto.capture.export_patches import export_patches
from ditto.capture.patches import (
    add_deepstack_rows,
    freeze_rope_scaling,
    select_mrope_columns,
    state_windows,
)
from ditto.capture.recurrences import semantic_recurrences
from ditto.capture.skeleton import stand_in
from ditto.errors import DittoError, ModelError
from ditto.network import dims
from ditto.program import Program
from ditto.progress import stage


def export(
    module: nn.Module,
    inputs: Mapping[str, TensorTypeHint],
    output_names: Sequence[str],
    prefix: str = "",
    dtype: torch.dtype | None = None,
    longest: int | None = None,
) -> Program:
    """Capture a module's forward.

    Args:
        module: a module with positional inputs that returns a tensor or a tuple of tensors; it is not modified.
        inputs: names and types of the arguments, in order. Dimensions of the same name are equal everywhere.
        output_names: names of the returned tensors.
        prefix: prefix that `module` adds to the user's module paths, e.g. `model.`.
        dtype: of floating parameters in the captured graph, None to keep their own.
        longest: maximum sequence length in tokens, None for a module without sequences.
    Raises:
        UnsupportedFeature: the module treats sequences of different lengths differently.
        ModelError: torch.export cannot capture the module, or it returns another number of tensors.
    """
    attention.register()
    experts.register()
    with stage("export", type(module).__name__):
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        twin = stand_in(module, mode, dtype)
        attention.use_semantic_attention(twin)
        experts.use_semantic_experts(twin)
        state_windows(twin)
        select_mrope_columns(twin)
        add_deepstack_rows(twin)
        if longest is not None:
            freeze_rope_scaling(twin, longest)
        with mode:
            samples = tuple(torch.empty(hint.sample_shape(), dtype=hint.dtype) for hint in inputs.values())
        try:
            with torch.no_grad(), export_patches(), semantic_recurrences(twin):
                exported = torch.export.export(twin, samples, dynamic_shapes=_dynamic_shapes(inputs), strict=False)
        except DittoError:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(
                f"torch.export cannot capture {type(module).__name__}: {reason}",
                remedy="see the error this one was raised from; control flow that depends on data is the usual cause",
            ) from error
        return _program(exported, inputs, tuple(output_names), prefix)


def _dynamic_shapes(inputs: Mapping[str, TensorTypeHint]) -> tuple[dict[int, Dim], ...]:
    known: dict[str, Dim] = {}
    shapes: list[dict[int, Dim]] = []
    for hint in inputs.values():
        axes: dict[int, Dim] = {}
        for axis, size in hint.dynamic.items():
            # torch.export rejects a dimension with a single size; the optimization profile still restricts it to one.
            dim = Dim(size.name, min=size.min, max=max(size.max, 2, size.min + 1))
            axes[axis] = known.setdefault(size.name, dim)
        shapes.append(axes)
    return tuple(shapes)


def _program(
    exported: ExportedProgram, inputs: Mapping[str, TensorTypeHint], output_names: tuple[str, ...], prefix: str
) -> Program:
    graph, parameters, constants, symbols = fx.Graph(), {}, {}, {}
    copied: dict[fx.Node, fx.Node] = {}
    signature = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    names = iter(inputs.items())
    for node in exported.graph.nodes:
        if node.op == "output":
            continue
        if node.op != "placeholder":
            _copy_into(graph, node, copied, exported.graph_module)
            continue
        spec = signature[node.name]
        if spec.kind == InputKind.USER_INPUT:
            name, hint = next(names)
            copy = graph.placeholder(name)
            for axis, size in hint.dynamic.items():
                symbols[node.meta["val"].shape[axis].node.expr] = dims.symbol(size.name)
        else:
            copy = graph.get_attr(node.name)
            if spec.kind == InputKind.PARAMETER:
                parameters[node.name] = str(spec.target)
            else:
                target = str(spec.target)
                held = exported.constants if target in exported.constants else exported.state_dict
                constants[node.name] = held[target]
        copy.meta.update(node.meta)
        copied[node] = copy
    results = exported.graph.find_nodes(op="output")[0].args[0]
    if len(results) != len(output_names):
        raise ModelError(f"the module returns {len(results)} tensors, {len(output_names)} names were given")
    graph.output(tuple(copied[node] for node in results))
    program = Program(graph, parameters, constants, symbols, output_names, prefix)
    program.sweep()
    return program


def _copy_into(graph: fx.Graph, node: fx.Node, copied: dict[fx.Node, fx.Node], owner: nn.Module) -> None:
    """Copy a node; subgraphs that only disable gradients or autocast are inlined."""
    if node.op == "get_attr":
        return  # a subgraph, copied with the node that runs it
    name = getattr(node.target, "__name__", "")
    args: Any = node.args
    if name == "wrap_with_set_grad_enabled":
        _inline(graph, node, args[1], args[2:], copied, owner)
    elif name == "wrap_with_autocast":
        if args[2]:
            raise ModelError("the model computes under autocast", remedy="build it in one dtype instead")
        _inline(graph, node, args[4], args[5:], copied, owner)
    elif node.target is operator.getitem and isinstance(copied.get(args[0]), tuple):
        copied[node] = copied[args[0]][args[1]]  # type: ignore[index]
    else:
        copied[node] = graph.node_copy(node, copied.__getitem__)


def _inline(
    graph: fx.Graph,
    node: fx.Node,
    target: fx.Node,
    args: Sequence[fx.Node],
    copied: dict[fx.Node, fx.Node],
    owner: nn.Module,
) -> None:
    sub = getattr(owner, str(target.target))
    places = iter(args)
    for inner in sub.graph.nodes:
        if inner.op == "placeholder":
            copied[inner] = copied[next(places)]
        elif inner.op == "output":
            results = inner.args[0]
            single = isinstance(results, fx.Node)
            copied[node] = copied[results] if single else tuple(copied[result] for result in results)  # type: ignore[assignment]
        else:
            _copy_into(graph, inner, copied, sub)
