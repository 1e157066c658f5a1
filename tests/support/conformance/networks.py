"""A network's inputs, outputs, named dimensions and optimisation profiles against their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field

from ditto.network import DimExpr, Network, Spec, symbol
from ditto.network.plugin import Plugin
from tests.support.conformance.rules import Scope, Violation, violation

Profiles = Mapping[str, Mapping[str, Sequence[int]]]


def dtype_name(spec: Spec) -> str:
    """`float16` for torch.float16."""
    return str(spec.dtype).removeprefix("torch.")


@define
class NetworkCheck:
    """One network against its part of the tables.

    Args:
        where: the file.
        rows: the part: inputs, outputs, profiles.
        ranges: of named dimensions, by key.
        network, profiles: what is checked.
        scope: of the tree.
    """

    where: str
    rows: Mapping[str, Any]
    ranges: Mapping[str, Mapping[str, Any]]
    network: Network
    profiles: Profiles
    scope: Scope
    _keys: dict[str, str] = field(factory=dict)  # what each named dimension stands for

    def run(self) -> Iterator[Violation]:
        """All violations."""
        inputs = self._inputs()
        yield from self._presence("input", self.network.inputs, inputs)
        for row in inputs:
            if row["name"] in self.network.inputs:
                spec = self.network.inputs[row["name"]]
                yield from self._spec(f"input {row['name']}", row, spec)
        outputs = [row for row in self.rows["outputs"] if self.scope.holds(row["when"])]
        yield from self._presence("output", self.network.outputs, outputs)
        for row in outputs:
            if row["name"] in self.network.outputs:
                spec = self.network.value(self.network.outputs[row["name"]]).spec
                yield from self._spec(f"output {row['name']}", row, spec)
        yield from self._host_memory(inputs)
        yield from self._profiles()

    def _inputs(self) -> list[dict[str, Any]]:
        """The rows of inputs; those of LoRA once for every module and layer."""
        rows = list(self.rows["inputs"])
        for row in self.rows.get("lora_inputs", ()):
            if self.scope.holds(row["when"]):
                modules = self.scope["build"].lora_config.lora_target_modules
                rows += [
                    {**row, "name": row["name"].format(module=module, layer=layer)}
                    for module in modules
                    for layer in range(self.scope["layers"])
                ]
        return rows

    def _presence(self, kind: str, found: Mapping[str, Any], rows: Sequence[dict[str, Any]]) -> Iterator[Violation]:
        by_name = {row["name"]: row for row in rows}
        for name in found:
            if name not in by_name:
                nobody = {"source": "LLM 2.4" if "lora_inputs" in self.rows else "multimodal 3.1"}
                yield violation(f"{self.where}: {kind} {name}", "is known to no runtime", nobody)
            elif not self.scope.holds(by_name[name]["when"]):
                row = by_name[name]
                yield violation(f"{self.where}: {kind} {name}", f"is bound only when `{row['when']}`", row)
        for name, row in by_name.items():
            if row["need"] == "required" and self.scope.holds(row["when"]) and name not in found:
                yield violation(f"{self.where}: {kind} {name}", "is missing", row)

    def _spec(self, what: str, row: Mapping[str, Any], spec: Spec) -> Iterator[Violation]:
        where = f"{self.where}: {what}"
        wanted = self.scope.size(row["dtype"])
        if dtype_name(spec) != wanted:
            yield violation(where, f"is {dtype_name(spec)}, not {wanted}", row)
        if len(spec.shape) != len(row["shape"]):
            yield violation(where, f"has rank {len(spec.shape)}, not {len(row['shape'])}", row)
            return
        for axis, (dim, entry) in enumerate(zip(spec.shape, row["shape"], strict=True)):
            size = self.scope.size(entry)
            if isinstance(size, str):
                yield from self._named(f"{where}, axis {axis},", row, dim, size)
            elif isinstance(dim, DimExpr):
                yield violation(f"{where}, axis {axis},", f"is {dim}, not {size or 'a number'}", row)
            elif size is not None and dim != size:
                yield violation(f"{where}, axis {axis},", f"is {dim}, not {size}", row)

    def _named(self, where: str, row: Mapping[str, Any], dim: Any, key: str) -> Iterator[Violation]:
        """A dynamic dimension: of a name that the tables give it, and of no name that stands for another range."""
        if not isinstance(dim, DimExpr) or dim != symbol(str(dim)):
            yield violation(where, f"is {dim}, not a named dimension", row)
            return
        name, wanted = str(dim), self.ranges[key]["dims"]
        if wanted is not None and name not in wanted:
            yield violation(where, f"is called {name}, not {' or '.join(wanted)}", self.ranges[key])
            return
        known = self._keys.setdefault(name, key)
        shared = {other for other, range_ in self.ranges.items() if name in (range_["dims"] or ())}
        if known != key and not {known, key} <= shared:
            yield violation(where, f"is called {name}, which stands for another range", self.ranges[key])

    def _host_memory(self, rows: Sequence[dict[str, Any]]) -> Iterator[Violation]:
        hosts = {row["name"]: row for row in rows if row["memory"] == "host"}
        for node in self.network.nodes:
            for name in () if isinstance(node.layer, Plugin) else node.inputs:
                if name in hosts:
                    kind = type(node.layer).__name__
                    problem = f"is in host memory and goes into {kind}, a layer of TensorRT"
                    row = {**hosts[name], "source": "LLM 2.0"}
                    yield violation(f"{self.where}: input {name}", problem, row)

    def _profiles(self) -> Iterator[Violation]:
        row = self.rows["profiles"]
        if self.scope.holds(row["when"]) and len(self.profiles) != self.scope.evaluate(row["count"]):
            where = f"{self.where}: {len(self.profiles)} optimisation profiles"
            yield violation(where, f"where the runtime wants {row['count']}", row)
        for title, profile in self.profiles.items():
            for name, key in self._keys.items():
                range_ = self.ranges[key]
                wanted = [self.scope.evaluate(range_[end]) for end in ("min", "opt", "max")]
                where = f"{self.where}: profile {title}, dimension {name}"
                if name not in profile:
                    yield violation(where, "has no range", range_)
                elif list(profile[name]) != wanted:
                    yield violation(where, f"is {list(profile[name])}, not {wanted}", range_)
            for name in profile.keys() - self._keys.keys():
                yield violation(f"{self.where}: profile {title}, dimension {name}", "is no input's", row)
