"""Whether TensorRT's kernels are the limit, or how Ditto writes a product: LLaVA-1.5-7B's products and attention, each
in every form that TensorRT can be given (`benchmarks.forms`, `benchmarks.token_forms`).

    python -m benchmarks.gpu_forms [--task vision prefill decode] [--batch 1 4] [--seconds N] [--json FILE]

Each form gets an engine of its own, as in `benchmarks.gpu_limits`, and runs over as many copies of its matrix as keep
it out of the L2 cache; PyTorch's time stands beside. Ditto's own forms come first, so that N seconds bring something of
everything. A form that TensorRT refuses, or that gives other numbers than PyTorch, is told and left out.

The tables sum the fastest forms, as often as the network has each: the tower's 23 blocks that are used and the
projector; of prompts 31 blocks, and of the 32nd query/key/value and attention alone, since only the last tokens go
through its rest; of a token with 640 others in the cache 32 blocks and the head. No network of these products can be
faster than this sum with TensorRT's kernels: it has nothing between them, and forms need not fit each other. A product
without its bias leaves that to what follows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from attrs import asdict, frozen

from benchmarks import token_forms
from benchmarks.described import llava_7b
from benchmarks.forms import Case, Form, Held, Tensors, cases
from benchmarks.gpu import gpu_for
from benchmarks.gpu_limits import each_ms, engine_of, run_bound
from ditto.bindings import TensorRT, load_native
from ditto.errors import DittoError
from ditto.network.dims import evaluate
from ditto.reference import relative_error

TASKS = ["vision", "prefill", "decode"]
# A relative error that float16 does not explain.
_WRONG = 1e-2


@frozen
class Found:
    """A form's time on the GPU, and PyTorch's for the same; `error` is relative to PyTorch's result."""

    task: str
    batch: int
    product: str
    times: int
    form: str
    is_used: bool
    ms: float
    torch_ms: float
    tflops: float
    error: float


class Measure(Protocol):
    """Whoever takes the time."""

    def form(self, case: Case, form: Form, batch: int) -> tuple[float, float]:
        """Milliseconds of one run, and the relative error."""
        ...

    def torch(self, case: Case, batch: int) -> float:
        """Milliseconds of PyTorch's."""
        ...


class Bench:
    """Measures forms on this machine's GPU."""

    def __init__(self, trt: TensorRT, device: torch.device, directory: Path) -> None:
        self._trt, self._device, self._directory = trt, device, directory
        self._cache = torch.cuda.get_device_properties(device).L2_cache_size

    def form(self, case: Case, form: Form, batch: int) -> tuple[float, float]:
        """Milliseconds of one run in TensorRT, and the relative error."""
        profile, network, (drawn, *more) = case.profile(batch), form.network, self._drawn(case, batch)
        source = Held({name: tensor.cpu() for name, tensor in drawn.items() if name == "bias"})
        engine = engine_of(network, source, profile, self._trt, self._directory / "form.engine")
        scratch = torch.empty(max(engine.scratch_bytes, 1), dtype=torch.uint8, device=self._device)
        spec = network.value(network.outputs["made"]).spec
        sizes = {name: size.max for name, size in profile.ranges.items()}
        shape = [evaluate(dim, sizes) for dim in spec.shape]
        made = torch.empty(shape, dtype=spec.dtype, device=self._device)
        execution = engine.execution(0, scratch, eager=True)
        once = {**form.inputs(drawn), "made": made}
        # Activations are the same ones, which the network's layer before has just written.
        bound = [once, *({**once, **form.cold(each)} for each in more)]
        taken = each_ms([partial(run_bound, execution, tensors) for tensors in bound], self._device)
        run_bound(execution, once)
        return taken, relative_error(form.seen(made, drawn), case.by_torch(drawn))

    def torch(self, case: Case, batch: int) -> float:
        """Milliseconds of one run in PyTorch."""
        return each_ms([partial(case.by_torch, drawn) for drawn in self._drawn(case, batch)], self._device)

    def _drawn(self, case: Case, batch: int) -> list[Tensors]:
        """For each run. Small matrices have more copies than in `gpu_limits`: 24 of 2 MiB would fit into the cache."""
        once = case.draw(batch, self._device)
        cold = {name: once[name] for name in case.cold}
        copies = 1 + 3 * self._cache // sum(tensor.nbytes for tensor in cold.values()) if cold else 1
        rolled = ({name: torch.roll(tensor, n, 0) for name, tensor in cold.items()} for n in range(1, copies))
        return [once, *({**once, **each} for each in rolled)]


def survey(asked: Sequence[Case], batches: Sequence[int], measure: Measure, until: float) -> Iterator[Found]:
    """Measure forms, Ditto's first, and tell each at once.

    Args:
        until: when no other is begun, by `time.monotonic`.
    """
    work = [
        (0 if name == case.used else 1 + place, batch, case, name, form)
        for batch in batches
        for case in asked
        for place, (name, form) in enumerate(case.forms.items())
    ]
    work.sort(key=lambda each: each[0])  # some of everything, whenever the time is up
    by_torch: dict[tuple[str, str, int], float] = {}
    for done, (_, batch, case, name, form) in enumerate(work):
        if time.monotonic() > until:
            print(f"the time is up: {len(work) - done} forms are left", flush=True)
            return
        title = f"{case.task} {batch}: {case.name}, {name}"
        try:
            ms, error = measure.form(case, form, batch)
            key = (case.task, case.name, batch)
            if key not in by_torch:
                by_torch[key] = measure.torch(case, batch)
        except (DittoError, RuntimeError) as refused:
            reason, _, _ = str(refused).partition("\n")
            print(f"{title}: refused, {reason}", flush=True)
            continue
        tflops = case.flops * batch / ms / 1e9
        print(
            f"{title}: {ms * 1e3:.1f} us, {tflops:.0f} TFLOP/s, PyTorch {by_torch[key] * 1e3:.1f} us"
            f"{'' if error < _WRONG else f'; WRONG, relative error {error:.1e}'}",
            flush=True,
        )
        if error < _WRONG:
            is_used = name == case.used
            yield Found(case.task, batch, case.name, case.times, name, is_used, ms, by_torch[key], tflops, error)


def tables(asked: Sequence[Case], found: Sequence[Found]) -> list[str]:
    """For each task and batch the fastest form of each product beside Ditto's and PyTorch's, and their sums; a sum that
    lacks something is none."""
    lines: list[str] = []
    for task, batch in dict.fromkeys((each.task, each.batch) for each in found):
        lines += ["", f"{task}, batch {batch}", ""]
        lines += [
            "| product | times | fastest form | us | TFLOP/s | Ditto's form | us | PyTorch, us |",
            "|---" * 8 + "|",
        ]
        sums: list[list[float | None]] = []
        for case in (case for case in asked if case.task == task):
            forms = [each for each in found if (each.task, each.batch, each.product) == (task, batch, case.name)]
            best, used = min(forms, key=lambda each: each.ms, default=None), [each for each in forms if each.is_used]
            taken = [best and best.ms, used[0].ms if used else None, best and best.torch_ms]
            sums.append([ms and case.times * ms for ms in taken])
            fastest, ditto, by_torch = ("-" if ms is None else f"{ms * 1e3:.1f}" for ms in taken)
            cells = [best.form, fastest, f"{best.tflops:.0f}"] if best else ["-"] * 3
            lines.append(f"| {case.name} | {case.times} | {' | '.join(cells)} | {case.used} | {ditto} | {by_torch} |")
        whole = ("-" if None in each else f"{sum(ms for ms in each if ms):.2f} ms" for each in zip(*sums, strict=True))
        fastest, ditto, by_torch = whole
        lines.append(f"| sum | | | {fastest} | | | {ditto} | {by_torch} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, nargs="+", default=TASKS)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    until, trt, device = time.monotonic() + options.seconds, load_native("tensorrt_rtx"), gpu_for(parser)
    print(f"{torch.cuda.get_device_name(device)}, {trt.title}, torch {torch.__version__}", flush=True)
    config = llava_7b().config
    asked = [case for case in (*cases(config), *token_forms.cases(config)) if case.task in options.task]
    found: list[Found] = []
    with tempfile.TemporaryDirectory() as directory:
        for each in survey(asked, options.batch, Bench(trt, device, Path(directory)), until):
            found.append(each)
            if options.json:  # after each form: what was measured is not lost
                options.json.write_text(json.dumps([asdict(each) for each in found], indent=1))
    print("\n".join(tables(asked, found)))


if __name__ == "__main__":
    main()
