"""What TensorRT's own kernels take of a tree's time: its products and attention, each alone in an engine.

    python -m benchmarks.gpu_limits TREE [--bench FILE] [--context 600] [--json FILE]

For each task (vision, prefill, decode), each kind of product and attention layer in the tree's network gets an engine
that holds nothing else, on the profile that the session uses. It runs under a CUDA graph, over as many copies of its
weights as keep them out of the L2 cache; the same by PyTorch stands beside. Times as often as the network has the
layer, they add up to what a network without any other work would take: where that is more than is wanted, the kernels
are the limit. FILE is what `ditto bench --json` wrote of the whole; what is left of it is the network's share.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, frozen
from torch import Tensor

from benchmarks.described import NoTensors
from benchmarks.llava_7b_gpu import WANTED
from ditto.arguments import DynamicDimension
from ditto.bench.clock import milliseconds
from ditto.bindings import TensorRT
from ditto.builders.pipeline import profile_record
from ditto.configs import TensorRTConfig
from ditto.engine import EngineTree
from ditto.network import Network, Spec
from ditto.network.dims import DimExpr, evaluate
from ditto.network.graph import Value
from ditto.network.layer import Layer
from ditto.network.layers import Attention, Constant, MatrixMultiply, Shuffle
from ditto.network.parts import whole
from ditto.runtime.device import library_for, this_gpu
from ditto.runtime.engine import Engine
from ditto.runtime.execution import Execution, Parts
from ditto.runtime.graphs import capture
from ditto.runtime.profiles import decode_profile, decoder, prefill_profile, profile_for
from ditto.runtime.weights import network_of
from ditto.targets import Profile
from ditto.targets.compile import compile_networks

_RUNS_PER_GRAPH = 24
_MOST_COPIES = 24


@frozen
class Task:
    """What the session is asked to do, as the bench names it.

    Args:
        component, profile: whose network, and the index of the profile that runs it.
        sizes: of named dimensions.
    """

    kind: str
    batch: int
    component: str
    profile: int
    sizes: Mapping[str, int]


@frozen
class Part:
    """A layer that may occur many times: its inputs' specs, and which of them are weights."""

    layer: Layer
    specs: tuple[Spec, ...]
    fixed: tuple[bool, ...]

    def title(self, sizes: Mapping[str, int]) -> str:
        """Its kind and its inputs' shapes."""
        shapes = ("x".join(str(evaluate(dim, sizes)) for dim in spec.shape) for spec in self.specs)
        return f"{type(self.layer).__name__} {', '.join(shapes)}"


@frozen
class Found:
    """A part's time on the GPU, milliseconds of one run."""

    part: str
    times: int
    tensorrt_ms: float
    torch_ms: float


def tasks(tree: EngineTree, batches: Sequence[int], context: int) -> list[Task]:
    """The bench's tasks, with the sizes that the session runs them at."""
    made: list[Task] = []
    for batch in batches if "vision" in tree.manifest.components else ():
        profile, rows = profile_for(tree.component("vision"), "batch", batch)
        made.append(Task("vision", batch, "vision", profile, {"batch": rows}))
    for batch in batches:
        prompts = prefill_profile(tree, batch, context)
        made.append(Task("prefill", batch, "llm", prompts.profile, {"batch": batch, "sequence": prompts.length}))
    for batch in batches:
        profile, rows = decode_profile(tree, batch)
        made.append(Task("decode", batch, decoder(tree), profile, {"batch": rows, "sequence": 1}))
    return made


def parts(network: Network, sizes: Mapping[str, int]) -> Counter[Part]:
    """Products and attention, and how often each occurs. What the session's sizes do not say (the slots that decode
    looks at) is none of theirs."""
    found: Counter[Part] = Counter()
    for node in network.nodes:
        if not isinstance(node.layer, (MatrixMultiply, Attention)):
            continue
        values = [network.value(name) for name in node.inputs]
        named = [dim for value in values for dim in value.spec.shape if isinstance(dim, DimExpr)]
        if all(dim.names <= sizes.keys() for dim in named):
            fixed = tuple(_is_weight(network, value) for value in values)
            found[Part(node.layer, tuple(value.spec for value in values), fixed)] += 1
    return found


def _is_weight(network: Network, value: Value) -> bool:
    """Whether a value is a constant, or one in another shape."""
    made = network.producer(value)
    if made is not None and isinstance(made.layer, Shuffle):
        return _is_weight(network, network.value(made.inputs[0]))
    return made is not None and isinstance(made.layer, Constant)


class Bench:
    """Measures parts on this machine's GPU."""

    def __init__(self, trt: TensorRT, device: torch.device, folder: Path) -> None:
        self._trt, self._device, self._folder = trt, device, folder
        self._cache = torch.cuda.get_device_properties(device).L2_cache_size

    def measure(self, part: Part, times: int, profile: Profile, sizes: Mapping[str, int]) -> Found:
        """A part's time in TensorRT and in PyTorch."""
        network = Network("part")
        inputs = [network.input(f"x{index}", spec) for index, spec in enumerate(part.specs)]
        made = network.add(part.layer, *inputs)
        network.output("y", made)
        path = self._folder / "part.engine"
        compile_networks([network], [profile], NoTensors(), self._trt, TensorRTConfig(), (), [path])
        engine = Parts([Engine(self._trt, path)], whole(network).calls, network.inputs, profile_record([profile]))
        given = self._tensors(part, sizes)
        shape = [evaluate(dim, sizes) for dim in made.spec.shape]
        scratch = torch.empty(max(engine.scratch_bytes, 1), dtype=torch.uint8, device=self._device)
        runs: list[Callable[[], object]] = []
        for operands in given:
            execution = engine.execution(0, scratch, eager=True)
            out = torch.empty(shape, dtype=made.spec.dtype, device=self._device)
            named = {f"x{index}": operand for index, operand in enumerate(operands)}
            runs.append(partial(_run, execution, {**named, "y": out}))
        # The same operands for both; their weights together do not fit into the cache, so neither finds them there.
        by_torch = [partial(part.layer.reference, *operands) for operands in given]
        return Found(part.title(sizes), times, self._ms(runs), self._ms(by_torch))

    def _tensors(self, part: Part, sizes: Mapping[str, int]) -> list[list[Tensor]]:
        """Operands for each run: activations are the same ones, which the network's layer before has just written."""
        shapes = [[evaluate(dim, sizes) for dim in spec.shape] for spec in part.specs]

        def draw(index: int) -> Tensor:
            return torch.randn(shapes[index], device=self._device).div(8).to(part.specs[index].dtype)

        once = [draw(index) for index in range(len(shapes))]
        weights = sum(tensor.nbytes for tensor, fixed in zip(once, part.fixed, strict=True) if fixed)
        copies = min(_MOST_COPIES, 1 + 3 * self._cache // weights) if weights else 1
        return [
            [draw(index) if fixed else once[index] for index, fixed in enumerate(part.fixed)] for _ in range(copies)
        ]

    def _ms(self, runs: Sequence[Callable[[], object]]) -> float:
        rounds = max(1, _RUNS_PER_GRAPH // len(runs))

        def all_runs() -> None:
            for _ in range(rounds):
                for run in runs:
                    run()

        with torch.cuda.stream(torch.cuda.Stream(self._device)):
            all_runs()
            replay = capture(all_runs)
            replay()
            return milliseconds(replay, self._device, repeats=7, burst=True) / (rounds * len(runs))


def _run(execution: Execution, bound: Mapping[str, Tensor]) -> None:
    execution.bind(bound)
    execution.enqueue()


def whole_ms(bench: Path | None) -> dict[tuple[str, int], float]:
    """Ditto's times of whole tasks, from the bench's JSON."""
    if bench is None:
        return {}
    rows = json.loads(bench.read_text())["rows"]
    times = {(row["task"]["kind"], row["task"]["batch"]): row["cells"]["ditto"]["ms"] for row in rows}
    return {task: ms for task, ms in times.items() if ms is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--bench", type=Path)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--context", type=int, default=600)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    tree, device = EngineTree.open(options.tree), this_gpu()
    trt, whole = library_for(tree), whole_ms(options.bench)
    print(f"{torch.cuda.get_device_name(device)}, {trt.title}, torch {torch.__version__}")
    record: list[dict[str, Any]] = []
    lines = [
        "| task | these kernels alone | the same by PyTorch | whole | the rest | wanted |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(trt, device, Path(folder))
        for task in tasks(tree, options.batch, options.context):
            network, component = network_of(tree, task.component), tree.component(task.component)
            ranges = list(component.profiles.values())[task.profile]
            profile = Profile("part", {dim: DynamicDimension(dim, *sizes) for dim, sizes in ranges.items()})
            found = [
                bench.measure(part, times, profile, task.sizes) for part, times in parts(network, task.sizes).items()
            ]
            for each in sorted(found, key=lambda each: -each.times * each.tensorrt_ms):
                times = f"{each.tensorrt_ms * 1e3:8.1f} us, PyTorch {each.torch_ms * 1e3:8.1f} us"
                print(f"  {task.kind} {task.batch}: {each.times:3} x {times}  {each.part}", flush=True)
            alone, by_torch = (
                sum(each.times * ms(each) for each in found)
                for ms in (lambda each: each.tensorrt_ms, lambda each: each.torch_ms)
            )
            all_of_it = whole.get((task.kind, task.batch))
            rest = "" if all_of_it is None else f"{all_of_it - alone:.2f} ms"
            told = "" if all_of_it is None else f"{all_of_it:.2f} ms"
            wanted = WANTED.get((task.kind, task.batch), "")
            label = f"{task.kind}, batch {task.batch}"
            lines.append(f"| {label} | {alone:.2f} ms | {by_torch:.2f} ms | {told} | {rest} | {wanted} |")
            parted = [asdict(each) for each in found]
            record.append({"task": asdict(task), "alone_ms": alone, "torch_ms": by_torch, "parts": parted})
    print("\n".join(["", *lines]))
    if options.json:
        options.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
