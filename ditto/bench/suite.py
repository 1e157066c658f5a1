"""Measure an engine tree and, on request, Hugging Face on the same weights, in one run."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import torch
from attrs import evolve

from ditto.bench.baselines import CompiledBaseline, EagerBaseline
from ditto.bench.clock import milliseconds
from ditto.bench.cold import cold_seconds
from ditto.bench.first import first_token, open_system
from ditto.bench.peak_rates import measure
from ditto.bench.plan import ANSWER, DECODE, PREFILL, VISION, Plan, Task
from ditto.bench.report import Cell, Report, Row, Startup, title
from ditto.bench.roofline import Roofline
from ditto.bench.system import System, TreeSystem
from ditto.engine import EngineTree, versions
from ditto.errors import DittoError
from ditto.progress import peak_resident_bytes, stage
from ditto.text.processing import preprocessor_of
from ditto.verify import inputs
from ditto.verify.model import checkpoint_of, load


def bench(
    tree: EngineTree,
    plan: Plan,
    session: str = "auto",
    against: str | None = None,
    on_progress: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Measure the tasks of a plan.

    Args:
        session: what runs the tree.
        against: checkpoint directory or hub id of the baselines; `manifest` for the tree's own; None for no baselines.
        on_progress: called with the report so far, after each measurement.
    Raises:
        DittoError: the tree cannot be run, or the plan exceeds its limits. Later failures are in the report.
    """
    plan = plan.fitted(tree)
    model = None if against is None else checkpoint_of(tree, None if against == "manifest" else against)
    roofline = Roofline(tree)
    free = _free_bytes()
    start = time.perf_counter()
    system = open_system(tree, session)
    first_token(system, tree)
    load_s = time.perf_counter() - start
    device, dtype = system.device, tree.component("llm").spec.dtype
    report = Report(
        tree=str(tree.root),
        model=model or tree.manifest.model,
        session=system.session_name,
        device=_device_name(device),
        dtype=dtype,
        versions={**versions(), **({tree.manifest.target: tree.manifest.library} if tree.manifest.library else {})},
        peak_rates=measure(device, getattr(torch, dtype)),
    )
    _free_memory()  # the buffers that the rates were measured on
    for task in plan.tasks(tree):
        cost = roofline.of(task)
        report.rows.append(Row(task, report.peak_rates.milliseconds(cost.bytes, cost.flops), cost.bytes, cost.flops))
    run = _Run(tree, plan, report, on_progress)
    report.startup[system.name] = Startup(load_s=load_s)
    run.measure(system)
    report.startup[system.name].memory_bytes = _memory_since(free)
    run.cold(system.name, "tree", str(tree.root), system.session_name)
    if model is not None:
        del system
        _free_memory()
        run.baselines(model, getattr(torch, dtype), device)
    return report


class _Run:
    def __init__(self, tree: EngineTree, plan: Plan, report: Report, on_progress: Callable[[Report], None]) -> None:
        self._tree, self._plan, self._report, self._on_progress = tree, plan, report, on_progress
        self._start = time.perf_counter()

    def baselines(self, model: str, dtype: torch.dtype, device: torch.device) -> None:
        """Measure Hugging Face, until time runs out."""
        free, start = _free_bytes(), time.perf_counter()
        try:
            eager = EagerBaseline(load(model, dtype, device), device, preprocessor_of(self._tree))
            first_token(eager, self._tree)
        except Exception as error:
            self._report.startup[EagerBaseline.name] = Startup(failure=_reason(error))
            return
        self._report.startup[EagerBaseline.name] = Startup(load_s=time.perf_counter() - start)
        self.measure(eager)
        self._report.startup[EagerBaseline.name].memory_bytes = _memory_since(free)
        if device.type == "cuda":
            self._report.startup[CompiledBaseline.name] = Startup()
            self.measure(CompiledBaseline(eager.model, device, eager.preprocessor))
        named = str(dtype).removeprefix("torch.")
        self.cold(EagerBaseline.name, "model", str(self._tree.root), model, named)

    def measure(self, system: System) -> None:
        """Fill the cells of one system."""
        for row in self._report.rows:
            out_of_time = system.name != TreeSystem.name and self._late
            row.cells[system.name] = Cell(failure="no time left") if out_of_time else self._cell(system, row.task)
            self._on_progress(self._report)

    def cold(self, name: str, *arguments: str) -> None:
        """Measure the start of a new process."""
        startup = self._report.startup[name]
        if name != TreeSystem.name and self._late:
            startup.failure = "no time left"
            return
        try:
            with stage("cold start", name):
                startup.cold_s = cold_seconds(*arguments)
        except Exception as error:
            startup.failure = _reason(error)
        self._on_progress(self._report)

    @property
    def _late(self) -> bool:
        return time.perf_counter() - self._start > self._plan.seconds

    def _cell(self, system: System, task: Task) -> Cell:
        try:
            with stage("bench", f"{system.name}, {title(task)}"):
                return Cell(ms=time_of(system, task, self._tree, self._plan.repeats))
        except Exception as error:
            _free_memory()
            return Cell(failure=_reason(error))


def time_of(system: System, task: Task, tree: EngineTree, repeats: int) -> float:
    """Milliseconds of a system for a task; per step for decode."""
    device = system.device
    if task.kind == VISION:
        items = [
            evolve(item, inputs={name: tensor.to(device) for name, tensor in item.inputs.items()})
            for item in inputs.sample_items(tree, task.batch)
        ]
        for _ in range(3):
            system.features(items)
        return milliseconds(lambda: system.features(items), device, repeats, burst=True)
    has_images = task.kind == ANSWER or inputs.needs_image(tree)
    given = inputs.prompts(tree, task.batch, task.context, has_images)

    def answered(count: int) -> Callable[[], object]:
        def work() -> None:
            made = system.answer(given, count)
            assert all(len(tokens) == count for tokens in made), "an answer ended early"

        return work

    for _ in range(2):
        answered(min(3, 1 + task.new_tokens))()  # the limits allow no more
    if task.kind in (PREFILL, ANSWER):
        return milliseconds(answered(task.new_tokens), device, repeats)
    assert task.kind == DECODE
    answered(1)()
    first = milliseconds(answered(1), device, repeats)
    return (milliseconds(answered(1 + task.new_tokens), device, repeats) - first) / task.new_tokens


def _reason(error: Exception) -> str:
    text = error.cause if isinstance(error, DittoError) else str(error)
    first = (text.strip().splitlines() or [""])[0]
    return first if isinstance(error, DittoError) else f"{type(error).__name__}: {first}"


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _free_bytes() -> int | None:
    if not torch.cuda.is_available():
        return None
    return torch.cuda.mem_get_info()[0]


def _memory_since(free: int | None) -> int:
    """GPU memory that was free before and is in use now; on a CPU the peak of the process."""
    now = _free_bytes()
    return peak_resident_bytes() if free is None or now is None else free - now


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
