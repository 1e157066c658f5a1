"""Captured forward of a model: a graph of aten and Ditto operators, parameters and constants."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from attrs import define, evolve, field
from torch import SymInt, Tensor, fx

import ditto.ops  # noqa: F401 - registers torch.ops.ditto for every package that works on programs
from ditto.errors import ModelError, Place
from ditto.network import dims
from ditto.network.dims import Dim
from ditto.network.spec import Spec

if TYPE_CHECKING:
    import sympy  # the import takes half a second, and running a tree does not need it

T = TypeVar("T")


@define
class Program:
    """A graph whose `get_attr` nodes refer to parameters and constants; placeholders are the inputs.

    Args:
        graph: the metadata of its nodes contains the module path and source line in the Hugging Face model.
        parameters: `get_attr` target → the parameter's name in the captured module.
        constants: `get_attr` target → its values (buffers, and tensors that rewrites precompute).
        symbols: torch's symbol → the named dimension that it stands for.
        prefix: prefix that the captured wrapper adds to the user's module paths.
        output_names: of the graph's outputs, in order.
        doubts: operators, with their places, that may mix tokens: no rule is known for them.
    """

    graph: fx.Graph
    parameters: dict[str, str]
    constants: dict[str, Tensor]
    symbols: dict[sympy.Symbol, Dim]
    output_names: tuple[str, ...]
    prefix: str = ""
    doubts: list[tuple[str, Place]] = field(factory=list)
    _count: int = field(default=0, init=False)
    _facts: dict[tuple[str, Callable[[Tensor], Any]], Any] = field(factory=dict, init=False)

    @property
    def inputs(self) -> list[fx.Node]:
        """The placeholders, in order."""
        return [node for node in self.graph.nodes if node.op == "placeholder"]

    @property
    def outputs(self) -> tuple[fx.Node, ...]:
        """The output nodes, in order."""
        (output,) = (node for node in self.graph.nodes if node.op == "output")
        return tuple(output.args[0])

    def at_size(self, name: str, size: int) -> Program:
        """The same program with a named dimension fixed to one size."""
        symbols = {symbol: size if dim == dims.symbol(name) else dim for symbol, dim in self.symbols.items()}
        return evolve(self, symbols=symbols)

    def constant(self, tensor: Tensor, name: str) -> fx.Node:
        """Add `tensor` as a constant: a new `get_attr` node at the current insertion point."""
        target = f"{name}_{self._count}"
        self._count += 1
        self.constants[target] = tensor
        node = self.graph.get_attr(target)
        node.meta["val"] = tensor
        return node

    def is_constant(self, node: fx.Node) -> bool:
        return node.op == "get_attr"

    def fact(self, node: fx.Node, about: Callable[[Tensor], T]) -> T:
        """The result of `about` for a constant's values, cached because all layers of a model need the same."""
        key = str(node.target), about
        if key not in self._facts:
            self._facts[key] = about(self.constants[str(node.target)])
        return self._facts[key]

    def spec(self, node: fx.Node) -> Spec:
        """Shape, with named dimensions, and dtype of a node's tensor."""
        value = node.meta["val"]
        return Spec(tuple(self.dim(size) for size in value.shape), value.dtype)

    def dim(self, size: int | SymInt) -> Dim:
        """Convert a torch size to a `Dim`.

        Raises:
            ModelError: the size is not a polynomial in the named dimensions.
        """
        if isinstance(size, int):
            return size
        expression = size.node.expr.expand()
        total: Dim = 0
        for monomial, factor in expression.as_coefficients_dict().items():
            term: Dim = int(factor) if factor.is_Integer else 0
            for base, power in monomial.as_powers_dict().items():
                if base == 1:
                    continue
                if base not in self.symbols or not (power.is_Integer and power > 0) or not factor.is_Integer:
                    raise ModelError(
                        f"the size {expression} is not a sum of products of input dimensions",
                        remedy="fix that dimension, or let the model compute it from its inputs' sizes",
                    )
                for _ in range(int(power)):
                    term = dims.multiply(term, self.symbols[base])
            total = dims.add(total, term)
        return total

    def place(self, node: fx.Node) -> Place:
        """The place in the user's model that a node comes from.

        It consists of the innermost module, and the innermost source line outside of torch.
        """
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = re.sub(r"\.slice\([^)]*\)", "", stack[-1][0].split("@")[0]) if stack else ""
        module = "" if path + "." == self.prefix else path.removeprefix(self.prefix)
        frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
        own = [frame for frame in frames if "torch" not in re.split(r"[\\/]", frame[0])] or frames
        return Place(module, f"{PurePath(own[-1][0]).name}:{own[-1][1]}" if own else "")

    def needed(self, wanted: Iterable[fx.Node], through: Callable[[fx.Node], bool] = lambda node: True) -> set[fx.Node]:
        """The nodes that the `wanted` nodes depend on, including themselves.

        Dependencies are operands, and operators that write into memory that one of the nodes reads.

        Args:
            through: whether to continue with the operands of a node.
        """
        writers: dict[fx.Node, list[fx.Node]] = {}
        for node in self.graph.nodes:
            if is_mutating(node):
                writers.setdefault(memory(node), []).append(node)
        found: set[fx.Node] = set()
        stack = list(wanted)
        while stack:
            node = stack.pop()
            if node not in found:
                found.add(node)
                stack.extend(node.all_input_nodes if through(node) else ())
                stack.extend(writers.get(memory(node), ()))
        return found

    def sweep(self) -> int:
        """Remove nodes that no output depends on, except inputs; return the number of removed nodes."""
        needed = self.needed([node for node in self.graph.nodes if node.op in ("output", "placeholder")])
        dead = [node for node in reversed(self.graph.nodes) if node not in needed]
        for node in dead:
            self.graph.erase_node(node)
        return len(dead)


def program_text(program: Program) -> str:
    """Text form of a program: stable, one line per node, with its type and place in the user's model."""
    lines: list[str] = []
    for node in program.graph.nodes:
        arguments = ", ".join([*map(str, node.args), *(f"{name}={value}" for name, value in node.kwargs.items())])
        target = program.parameters.get(str(node.target), node.target)
        value = node.meta.get("val")
        kind = f": {program.spec(node)}" if isinstance(value, Tensor) and node.op != "output" else ""
        place = program.place(node)
        lines.append(f"%{node.name}{kind} = {node.op} {target}({arguments})" + (f"   # {place}" if str(place) else ""))
    return "\n".join(lines) + "\n"


def evaluate(
    program: Program,
    inputs: Mapping[str, Tensor],
    parameters: Callable[[str], Tensor],
    wanted: tuple[fx.Node, ...] | None = None,
) -> tuple[Any, ...]:
    """Run a program in PyTorch, or only the nodes that some of its nodes depend on.

    Args:
        inputs: tensors by placeholder name; only those that are needed must be present.
        parameters: returns the values of a parameter, by its name in the captured module.
        wanted: the nodes whose values to return; the program's outputs if None.
    """
    targets = program.outputs if wanted is None else wanted
    needed = program.needed(targets)
    values: dict[fx.Node, Any] = {}
    with torch.no_grad():
        for node in program.graph.nodes:
            if node not in needed:
                continue
            if node.op == "placeholder":
                values[node] = inputs[str(node.target)]
            elif node.op == "get_attr":
                name = str(node.target)
                values[node] = (
                    program.constants[name] if name in program.constants else parameters(program.parameters[name])
                )
            else:
                args = fx.map_arg(node.args, values.__getitem__)
                kwargs = fx.map_arg(node.kwargs, values.__getitem__)
                values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return tuple(values[node] for node in targets)


def is_mutating(node: fx.Node) -> bool:
    """Whether a node's operator modifies the values of an argument; `detach_` does not."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable and node.target != torch.ops.aten.detach_.default


def memory(node: fx.Node) -> fx.Node:
    """The node whose memory a node may share: the start of its chain of views and in-place operators."""
    while True:
        schema = getattr(node.target, "_schema", None)
        if node.target is operator.getitem:
            shared = node.args[0]
        elif schema is not None and any(result.alias_info for result in schema.returns):
            shared = next((arg for arg, given in zip(node.args, schema.arguments) if given.alias_info), None)
        else:
            return node
        if not isinstance(shared, fx.Node):
            return node
        node = shared
