"""Rewrite rules: a pattern and its replacement as plain functions, which can be run and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from ditto.ops.traits import Trait, traits_of
from ditto.program import Program
from ditto.refusals import Refusal
from ditto.rewrite.clean import clean

_DTYPES = (torch.float16, torch.float32)

Bindings = dict[str, Any]


@frozen
class RewriteReport:
    """Report of a rewrite.

    Args:
        applied: number of replacements.
        refused: places where the pattern matched but was not replaced, with reasons.
    """

    applied: int
    refused: tuple[Refusal, ...] = ()


@frozen(slots=False)
class Rewrite:
    """A rule that replaces matches of `pattern` by `replacement`.

    Args:
        name: for logs and dumps.
        pattern, replacement: functions of tensors and numbers, with the same parameters.
        sample: arguments to trace both functions with. Floating tensors are traced in float16 and float32; a number
            matches any number, so each must be one that the functions do not use otherwise (1.25e-6, 37).
        only_if: called with the program and the match of each parameter (a node or a number); returns None to replace
            it, or the reason not to.
    """

    name: str
    pattern: Callable[..., Tensor]
    replacement: Callable[..., Tensor]
    sample: tuple[Any, ...]
    only_if: Callable[[Program, Bindings], str | None] = lambda program, found: None

    def __call__(self, program: Program) -> RewriteReport:
        """Replace all matches in a program."""
        applied = 0
        refused: dict[Refusal, None] = {}  # each once, even if the pattern matches repeatedly or in several dtypes
        for form in self._forms:
            for node in list(program.graph.nodes):
                if node.op != "call_function" or node.target != form.anchor.target:
                    continue
                reasons: list[str] = []
                for found in form.matches(node):
                    reason = self.only_if(program, found) or form.replace(program, node, found)
                    if reason is None:
                        applied += 1
                        break
                    reasons.append(reason)
                else:
                    refused.update(dict.fromkeys(Refusal(program.place(node), reason) for reason in reasons))
            program.sweep()  # so that replaced nodes do not match the next form again
        return RewriteReport(applied, tuple(refused))

    @cached_property
    def _forms(self) -> tuple[_Form, ...]:
        return tuple(_Form.traced(self.pattern, self.replacement, self.sample, dtype) for dtype in _DTYPES)


@frozen
class _Form:
    """A rewrite traced in one dtype; `wild` maps numbers and dtypes of the sample to parameter names."""

    pattern: fx.Graph
    wanted: fx.Graph
    wild: Mapping[Any, str]

    @staticmethod
    def traced(
        pattern: Callable[..., Tensor], replacement: Callable[..., Tensor], sample: tuple[Any, ...], dtype: torch.dtype
    ) -> _Form:
        names = pattern.__code__.co_varnames[: pattern.__code__.co_argcount]
        cast = [x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in sample]
        wild: dict[Any, str] = {
            x: name for name, x in zip(names, cast, strict=True) if not isinstance(x, (Tensor, bool, str))
        }
        if dtype == torch.float16:
            wild[dtype] = "dtype"
        return _Form(_trace(pattern, names, cast), _trace(replacement, names, cast), wild)

    @property
    def anchor(self) -> fx.Node:
        """The last operator of the pattern."""
        result = self.pattern.find_nodes(op="output")[0].args[0]
        assert isinstance(result, tuple)
        return result[0]

    def matches(self, node: fx.Node) -> Iterator[Bindings]:
        """The bindings of the parameters for each match of the pattern that ends at `node`."""
        for bindings in self._match(self.anchor, node, {}):
            yield {name: value for name, value in bindings.items() if isinstance(name, str)}

    def replace(self, program: Program, node: fx.Node, found: Bindings) -> str | None:
        """Replace `node`; return the reason if the replacement has another shape or dtype, else None."""
        values: dict[fx.Node, Any] = {}
        result = node
        with program.graph.inserting_before(node):
            for inner in self.wanted.nodes:
                if inner.op == "placeholder":
                    values[inner] = found[inner.target]
                elif inner.op == "output":
                    result = values[inner.args[0][0]]
                else:
                    args = self._filled(inner.args, values, found)
                    kwargs = self._filled(inner.kwargs, values, found)
                    values[inner] = program.graph.call_function(inner.target, args, kwargs)
                    values[inner].meta.update(node.meta)
                    values[inner].meta["val"] = fake_result(values[inner])
        if _form_of(result) != _form_of(node):
            return "the replacement has another shape or dtype"
        node.replace_all_uses_with(result)
        return None

    def _filled(self, argument: Any, values: dict[fx.Node, Any], found: Bindings) -> Any:
        if isinstance(argument, fx.Node):
            return values[argument]
        if isinstance(argument, (tuple, list)):
            return type(argument)(self._filled(item, values, found) for item in argument)
        if isinstance(argument, dict):
            return {key: self._filled(item, values, found) for key, item in argument.items()}
        name = self._wild(argument)
        return argument if name is None else found[name]

    def _wild(self, argument: Any) -> str | None:
        hashable = isinstance(argument, (int, float, torch.dtype)) and not isinstance(argument, bool)
        return self.wild.get(argument) if hashable else None

    def _match(self, wanted: Any, have: Any, bindings: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
        """Extend `bindings` (pattern node or parameter name → graph node or number) so that `have` matches `wanted`."""
        if isinstance(wanted, fx.Node):
            if wanted in bindings:
                if bindings[wanted] is have:
                    yield bindings
            elif not isinstance(have, fx.Node):
                return
            elif wanted.op == "placeholder":
                value, sample = have.meta.get("val"), wanted.meta["val"]
                if isinstance(value, Tensor) and value.dim() == sample.dim():
                    bound = {**bindings, wanted: have, wanted.target: have}
                    # The pattern has no casts without effect, so it is valid only for the dtypes it was traced with.
                    floating = sample.is_floating_point()
                    yield from self._match(sample.dtype, value.dtype, bound) if floating else iter((bound,))
            elif have.op == "call_function" and have.target == wanted.target:
                yield from self._match_call(wanted, have, bindings)
        elif isinstance(wanted, (tuple, list)):
            if isinstance(have, (tuple, list)) and len(have) == len(wanted):
                yield from self._match_all(list(zip(wanted, have, strict=True)), bindings)
        else:
            name = self._wild(wanted)
            if name is None:
                if type(wanted) is type(have) and wanted == have:
                    yield bindings
            elif type(have) is type(wanted) and bindings.get(name, have) == have:
                yield {**bindings, name: have}

    def _match_call(self, wanted: fx.Node, have: fx.Node, bindings: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
        left, right = arguments(wanted), arguments(have)
        bound = {**bindings, wanted: have}
        orders = [right]
        commutes = Trait.COMMUTES in traits_of(wanted.target) and right.get("alpha", 1) == 1
        if commutes and isinstance(right["other"], fx.Node):
            orders.append({**right, "self": right["other"], "other": right["self"]})
        for order in orders:
            yield from self._match_all([(left[name], order[name]) for name in left], bound)

    def _match_all(self, pairs: list[tuple[Any, Any]], bindings: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
        if not pairs:
            yield bindings
            return
        for extended in self._match(*pairs[0], bindings):
            yield from self._match_all(pairs[1:], extended)


def arguments(node: fx.Node) -> dict[str, Any]:
    """Arguments of a call by their schema names, with defaults filled in and non-negative axes."""
    schema = node.target._schema  # type: ignore[union-attr]
    found: dict[str, Any] = {}
    for index, parameter in enumerate(schema.arguments):
        if index < len(node.args) and not parameter.kwarg_only:
            found[parameter.name] = node.args[index]
        else:
            found[parameter.name] = node.kwargs.get(parameter.name, parameter.default_value)
    first = node.args[0][0] if isinstance(node.args[0], (list, tuple)) else node.args[0]
    if isinstance(first, fx.Node) and isinstance(first.meta.get("val"), Tensor):
        rank = first.meta["val"].dim() + (1 if "unsqueeze" in schema.name or "stack" in schema.name else 0)
        for name in ("dim", "dim0", "dim1"):
            if isinstance(found.get(name), int) and found[name] < 0:
                found[name] += rank
            elif isinstance(found.get(name), (list, tuple)):
                found[name] = [axis % rank for axis in found[name]]
    return found


def as_call(operator: Any, given: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Convert arguments by schema name to positional and keyword arguments."""
    names = {parameter.name: parameter.kwarg_only for parameter in operator._schema.arguments}
    args = tuple(given[name] for name, keyword in names.items() if not keyword)
    return args, {name: given[name] for name, keyword in names.items() if keyword}


def _trace(function: Callable[..., Tensor], names: tuple[str, ...], sample: list[Any]) -> fx.Graph:
    tensors = {name: x for name, x in zip(names, sample, strict=True) if isinstance(x, Tensor)}
    numbers = {name: x for name, x in zip(names, sample, strict=True) if not isinstance(x, Tensor)}

    def run(*given: Tensor) -> tuple[Tensor]:
        return (function(**dict(zip(tensors, given, strict=True)), **numbers),)

    traced = make_fx(run, tracing_mode="fake", pre_dispatch=True)(*tensors.values())
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    order = iter(tensors)
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            copied[node] = graph.placeholder(next(order))
            copied[node].meta.update(node.meta)
        else:
            copied[node] = graph.node_copy(node, copied.__getitem__)
            if node.op == "output":
                copied[node].args = (tuple(copied[result] for result in node.args[0]),)
    program = Program(graph, {}, {}, {}, ("result",))
    clean(program)
    return program.graph


def _form_of(node: fx.Node) -> tuple[torch.dtype, list[str]]:
    value = node.meta["val"]
    return value.dtype, [str(size) for size in value.shape]


def fake_result(node: fx.Node) -> Any:
    """The fake tensors that a node's operator returns for those of its arguments."""
    args = fx.map_arg(node.args, lambda argument: argument.meta["val"])
    kwargs = fx.map_arg(node.kwargs, lambda argument: argument.meta["val"])
    mode = next(
        (
            value.fake_mode
            for value in (argument.meta["val"] for argument in node.all_input_nodes)
            if hasattr(value, "fake_mode")
        ),
        None,
    )
    if mode is None:
        return node.target(*args, **kwargs)  # type: ignore[operator]
    with mode:
        return node.target(*args, **kwargs)  # type: ignore[operator]
