"""What TensorRT takes of a tree's time, layer by layer: its products and attention alone, and the rest in pieces.

    python -m benchmarks.gpu_limits TREE [--bench FILE] [--context 600] [--json FILE]

For each task (vision, prefill, decode) the tree's network is cut (`benchmarks.pieces`) at its products and attention
layers. Each kind of these, and each kind of piece between them, gets an engine that holds nothing else, on the profile
that the session uses. It runs under a CUDA graph, over as many copies of its weights and caches as keep them out of the
L2 cache, 24 at most: too few for matrices of 2 MiB, which PyTorch finds there, too. Products and attention by PyTorch
stand beside. Times as often as the network has it, products and attention add up to what a network without any other
work would take: where that is more than is wanted, the kernels are the limit. Pieces say where the rest goes. FILE is
what `ditto bench --json` wrote of the whole; less what products and attention take longer than PyTorch's, it says what
the same network would take with kernels like these.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, frozen
from torch import Tensor

from benchmarks.gpu import gpu_for
from benchmarks.llava_7b_gpu import WANTED
from benchmarks.pieces import Piece, cut, kinds
from ditto.bench.clock import milliseconds
from ditto.bindings import TensorRT
from ditto.configs import TensorRTConfig
from ditto.engine import Component, EngineTree, Phase, Profile
from ditto.network import Network, Spec
from ditto.network.dims import evaluate
from ditto.network.layers import Constant
from ditto.network.weight import Stored, TensorSource, leaves
from ditto.passes.partition import PartitionMode, partition
from ditto.runtime.device import library_for
from ditto.runtime.engine import Engine
from ditto.runtime.execution import Execution, Parts
from ditto.runtime.graphs import capture
from ditto.runtime.profiles import component_for, decode_profile, kv_length_bucket, prefill_profile, profile_for
from ditto.runtime.runtime_cache import RuntimeCache
from ditto.runtime.session import RequestLimits
from ditto.runtime.weights import network_of
from ditto.targets.compile import compile_networks
from ditto.targets.tensorrt.separate import KV_LENGTH

_RUNS_PER_GRAPH = 24
_MOST_COPIES = 24
# Of the tokens that the bench decodes, half.
_NEW_TOKENS = 64


@frozen
class Task:
    """What the session is asked to do, as the bench names it.

    Args:
        component, profile: whose network, and the index of the profile that runs it.
        sizes: of named dimensions.
        cached: tokens that rows hold already.
    """

    kind: str
    batch: int
    component: str
    profile: int
    sizes: Mapping[str, int]
    cached: int = 0


@frozen
class Found:
    """The time of a kind of piece on the GPU, milliseconds of one run; PyTorch's of products and attention alone."""

    part: str
    is_kernel: bool
    times: int
    tensorrt_ms: float
    torch_ms: float | None

    @property
    def all_ms(self) -> float:
        return self.times * self.tensorrt_ms


class Drawn:
    """Random numbers for those of a network's weights that stay in its engine."""

    def __init__(self, network: Network) -> None:
        constants = (node.layer.weight for node in network.nodes if isinstance(node.layer, Constant))
        self._stored = {leaf.name: leaf for weight in constants for leaf in leaves(weight) if isinstance(leaf, Stored)}

    def tensor(self, name: str) -> Tensor:
        """Of the shape and dtype of the weight of that name."""
        return torch.randn(self._stored[name].shape).div(8).to(self._stored[name].dtype)

    def release(self) -> None:
        """There is nothing to let go of."""


def tasks(tree: EngineTree, batches: Sequence[int], context: int) -> list[Task]:
    """The bench's tasks, with the sizes that the session runs them at."""
    made: list[Task] = []
    for batch in batches if "vision" in tree.manifest.components else ():
        profile, rows = profile_for(tree.component("vision"), Phase.ENCODE, "batch", batch)
        made.append(Task("vision", batch, "vision", profile, {"batch": rows}))
    for batch in batches:
        prompts = prefill_profile(tree, batch, context)
        table = _prompt_rows(tree.component("llm"), prompts.profile, "max")
        sizes = {"batch": batch, "sequence": prompts.length, **table}
        made.append(Task("prefill", batch, "llm", prompts.profile, sizes))
    for batch in batches:
        decoder = component_for(tree, Phase.DECODE)
        component = tree.component(decoder)
        capacity = RequestLimits.of(tree).max_seq_len
        live = kv_length_bucket(tree, context + _NEW_TOKENS, capacity)
        profile, rows = decode_profile(tree, batch, live)
        sizes = {"batch": rows, "sequence": 1, KV_LENGTH: live, **_prompt_rows(component, profile, "min")}
        made.append(Task("decode", batch, decoder, profile, sizes, min(context, live - 1)))
    return made


def _prompt_rows(component: Component, profile: int, end: str) -> dict[str, int]:
    """The rows of the table of image features: with prompts the most, the fewest without."""
    rows = component.spec.profiles[profile].ranges.get("prompt_rows")
    return {} if rows is None else {"prompt_rows": getattr(rows, end)}


def operands(piece: Piece, task: Task, device: torch.device, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Tensors for a piece's inputs, or for those of `names`: random numbers, and indices that exist."""

    def draw(name: str, spec: Spec) -> Tensor:
        shape = [evaluate(dim, task.sizes) for dim in spec.shape]
        if name == "cache_slots":
            return torch.arange(shape[0], dtype=spec.dtype, device=device)
        if name in ("write_indices", "position_ids"):
            return torch.full(shape, task.cached, dtype=spec.dtype, device=device)
        if spec.dtype == torch.bool:
            return torch.ones(shape, dtype=spec.dtype, device=device)
        if not spec.dtype.is_floating_point:  # ids and rows: there is always a first
            return torch.zeros(shape, dtype=spec.dtype, device=device)
        return torch.randn(shape, dtype=torch.float32, device=device).div_(8).to(spec.dtype)

    wanted = piece.network.inputs if names is None else names
    return {name: draw(name, piece.network.inputs[name]) for name in wanted}


def cold_bytes(piece: Piece, sizes: Mapping[str, int]) -> int:
    """How many bytes of a run come from the GPU's memory: weights, and the slots of caches that are looked at."""
    caches = {*piece.network.shared.values()}
    found = 0
    for name in (*piece.fixed, *caches):
        spec = piece.network.inputs[name]
        shape = [evaluate(dim, sizes) for dim in spec.shape]
        if name in caches:
            shape[2] = min(shape[2], sizes.get(KV_LENGTH, sizes["sequence"]))
        found += torch.Size(shape).numel() * spec.dtype.itemsize
    return found


class Bench:
    """Measures pieces on this machine's GPU."""

    def __init__(self, trt: TensorRT, device: torch.device, directory: Path) -> None:
        self._trt, self._device, self._directory = trt, device, directory
        self._cache = torch.cuda.get_device_properties(device).L2_cache_size

    def measure(self, piece: Piece, times: int, profile: Profile, task: Task) -> Found:
        """A piece's time in TensorRT; of a product or attention in PyTorch, too."""
        network = piece.network
        engine = engine_of(network, Drawn(network), profile, self._trt, self._directory / "piece.engine")
        given = self._operands(piece, task)
        scratch = torch.empty(max(engine.scratch_bytes, 1), dtype=torch.uint8, device=self._device)
        # Written to again and again, as the network's own memory for what layers hand on is.
        outputs = {
            name: self._empty(network.value(value).spec, task)
            for name, value in network.outputs.items()
            if name not in network.shared
        }
        runs: list[Callable[[], object]] = []
        for tensors in given:
            in_place = {present: tensors[past] for present, past in network.shared.items()}
            execution = engine.execution(0, scratch, eager=True)
            runs.append(partial(run_bound, execution, {**tensors, **outputs, **in_place}))
        torch_ms = None
        if piece.is_kernel:  # the same operands for both: neither finds its weights in the cache
            torch_ms = each_ms([in_torch(piece, tensors) for tensors in given], self._device)
        return Found(piece.title(task.sizes), piece.is_kernel, times, each_ms(runs, self._device), torch_ms)

    def _operands(self, piece: Piece, task: Task) -> list[dict[str, Tensor]]:
        """For each run: activations are the same ones, which the network's layer before has just written."""
        once, cold = operands(piece, task, self._device), cold_bytes(piece, task.sizes)
        copies = min(_MOST_COPIES, 1 + 3 * self._cache // cold) if cold else 1
        apart = [*piece.fixed, *dict.fromkeys(piece.network.shared.values())]
        more = (operands(piece, task, self._device, apart) for _ in range(copies - 1))
        return [once, *({**once, **own} for own in more)]

    def _empty(self, spec: Spec, task: Task) -> Tensor:
        shape = [evaluate(dim, task.sizes) for dim in spec.shape]
        return torch.empty(shape, dtype=spec.dtype, device=self._device)


def in_torch(piece: Piece, tensors: Mapping[str, Tensor]) -> Callable[[], Tensor]:
    """A product or attention in PyTorch, of weights in the shapes that it has them in."""
    (kernel,), known = piece.layers, dict(tensors)
    for node in piece.network.nodes:
        if node.outputs != kernel.outputs:
            known[node.outputs[0]] = _alone(node.layer.reference(*(known[name] for name in node.inputs)))
    inputs = [known[name] for name in kernel.inputs]
    return lambda: _alone(kernel.layer.reference(*inputs))


def _alone(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The result of a layer that has one."""
    assert isinstance(result, Tensor)
    return result


def each_ms(runs: Sequence[Callable[[], object]], device: torch.device) -> float:
    """The time of one of several runs, one after the other in a CUDA graph."""
    rounds = max(1, _RUNS_PER_GRAPH // len(runs))

    def all_runs() -> None:
        for _ in range(rounds):
            for run in runs:
                run()

    stream, drawing = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(drawing)  # operands are there before they are read
    with torch.cuda.stream(stream):
        all_runs()
        replay = capture(all_runs)
        replay()
        return milliseconds(replay, device, repeats=7, burst=True) / (rounds * len(runs))


def engine_of(network: Network, source: TensorSource, profile: Profile, trt: TensorRT, path: Path) -> Parts:
    """A network in an engine of its own, loaded."""
    compiled(network, source, profile, trt, path)
    kernels = RuntimeCache(None)
    schedule = partition(network, PartitionMode.WHOLE).schedule
    return Parts([Engine(trt, path, kernels)], schedule, network.inputs, [profile], kernels)


def compiled(network: Network, source: TensorSource, profile: Profile, trt: TensorRT, path: Path) -> int:
    """Compile a network into a file; the engine's size in bytes."""
    return compile_networks([network], [profile], source, trt, TensorRTConfig(), (), [path])


def run_bound(execution: Execution, bound: Mapping[str, Tensor]) -> None:
    """Run once with these tensors."""
    execution.bind(bound)
    execution.enqueue()


def whole_ms(bench: Path | None) -> dict[tuple[str, int], float]:
    """Ditto's times of whole tasks, from the bench's JSON."""
    if bench is None:
        return {}
    rows = json.loads(bench.read_text())["rows"]
    times = {(row["task"]["kind"], row["task"]["batch"]): row["cells"]["ditto"]["ms"] for row in rows}
    return {task: ms for task, ms in times.items() if ms is not None}


def told(task: Task, found: Sequence[Found], of_whole: float | None) -> tuple[str, dict[str, Any]]:
    """A task's row of the table, and its record."""
    kernels = sum(each.all_ms for each in found if each.is_kernel)
    by_torch = sum(each.times * each.torch_ms for each in found if each.torch_ms is not None)
    rest = sum(each.all_ms for each in found if not each.is_kernel)
    sums = {"kernels_ms": kernels, "torch_ms": by_torch, "rest_ms": rest, "all_ms": kernels + rest}
    cells = [f"{task.kind}, batch {task.batch}", *(f"{ms:.2f} ms" for ms in sums.values())]
    like_torch = None if of_whole is None else of_whole - (kernels - by_torch)
    cells += ["" if ms is None else f"{ms:.2f} ms" for ms in (of_whole, like_torch)]
    cells.append(str(WANTED.get((task.kind, task.batch), "")))
    wholes = {"whole_ms": of_whole, "like_torch_ms": like_torch}
    record = {"task": asdict(task), **sums, **wholes, "parts": [asdict(each) for each in found]}
    return f"| {' | '.join(cells)} |", record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--bench", type=Path)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--context", type=int, default=600)
    parser.add_argument("--task", choices=("vision", "prefill", "decode"), nargs="+")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device, tree = gpu_for(parser), EngineTree.open(options.tree)
    trt, wholes = library_for(tree), whole_ms(options.bench)
    print(f"{torch.cuda.get_device_name(device)}, {trt.title}, torch {torch.__version__}")
    records: list[dict[str, Any]] = []
    lines = [
        "| task | products and attention alone | the same by PyTorch | the rest, piece by piece, alone "
        "| all of it alone | whole | whole, with PyTorch's products and attention | wanted |",
        "|---" * 8 + "|",
    ]
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(trt, device, Path(directory))
        for task in tasks(tree, options.batch, options.context):
            if options.task and task.kind not in options.task:
                continue
            network, profile = (
                network_of(tree, task.component),
                tree.component(task.component).spec.profiles[task.profile],
            )
            found = [bench.measure(piece, times, profile, task) for piece, times in kinds(cut(network))]
            for each in sorted(found, key=lambda each: -each.all_ms):
                by_torch = "-" if each.torch_ms is None else f"{each.torch_ms * 1e3:.1f} us"
                times = f"{each.times:3} x {each.tensorrt_ms * 1e3:8.1f} us, PyTorch {by_torch:>10}"
                print(f"  {task.kind} {task.batch}: {times}  {each.part}", flush=True)
            line, record = told(task, found, wholes.get((task.kind, task.batch)))
            lines.append(line)
            records.append(record)
            if options.json:  # after each task: what was measured is not lost
                options.json.write_text(json.dumps(records, indent=1))
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    main()
