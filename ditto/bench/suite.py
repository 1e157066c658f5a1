"""Measures an engine tree and, on request, Hugging Face on the same weights, all in one run."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import torch

from ditto.bench.ceilings import measure
from ditto.bench.clock import milliseconds
from ditto.bench.cold import cold_seconds
from ditto.bench.contender import Contender, TreeContender
from ditto.bench.first import first_token, open_contender
from ditto.bench.floors import Floors
from ditto.bench.plan import ANSWER, DECODE, PREFILL, VISION, Plan, Task
from ditto.bench.report import Cell, Report, Row, Startup, title
from ditto.bench.rivals import CompiledRival, EagerRival
from ditto.engine import EngineTree, versions
from ditto.errors import DittoError
from ditto.progress import peak_resident_bytes, stage
from ditto.verify import inputs
from ditto.verify.model import checkpoint_of, load


def bench(
    tree: EngineTree,
    plan: Plan,
    session: str = "auto",
    against: str | None = None,
    told: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Measure.

    Args:
        session: what runs the tree.
        against: checkpoint folder or hub id of the rivals, `manifest` for the tree's own; None for no rivals.
        told: called with the report so far, after each measurement.
    Raises:
        DittoError: the tree cannot be run, or the plan does not fit it. What goes wrong later is in the report.
    """
    plan = plan.fitted(tree)
    model = None if against is None else checkpoint_of(tree, None if against == "manifest" else against)
    floors = Floors(tree)
    free = _free_bytes()
    start = time.perf_counter()
    contender = open_contender(tree, session)
    first_token(contender, tree)
    load_s = time.perf_counter() - start
    device, dtype = contender.device, tree.component("llm").dtype
    report = Report(
        tree=str(tree.root),
        model=model or tree.manifest.model,
        session=contender.session_name,
        device=_device_name(device),
        dtype=dtype,
        versions={**versions(), **({tree.manifest.target: tree.manifest.library} if tree.manifest.library else {})},
        ceilings=measure(device, getattr(torch, dtype)),
    )
    _let_go()  # what the ceilings were measured on
    for task in plan.tasks(tree):
        cost = floors.of(task)
        report.rows.append(Row(task, report.ceilings.milliseconds(cost.bytes, cost.flops), cost.bytes, cost.flops))
    run = _Run(tree, plan, report, told)
    report.startup[contender.name] = Startup(load_s=load_s)
    run.measure(contender)
    report.startup[contender.name].memory_bytes = _memory_since(free)
    run.cold(contender.name, "tree", str(tree.root), contender.session_name)
    if model is not None:
        del contender
        _let_go()
        run.rivals(model, getattr(torch, dtype), device)
    return report


class _Run:
    def __init__(self, tree: EngineTree, plan: Plan, report: Report, told: Callable[[Report], None]) -> None:
        self._tree, self._plan, self._report, self._told = tree, plan, report, told
        self._start = time.perf_counter()

    def rivals(self, model: str, dtype: torch.dtype, device: torch.device) -> None:
        """Measure Hugging Face, as far as time allows."""
        free, start = _free_bytes(), time.perf_counter()
        try:
            eager = EagerRival(load(model, dtype, device), device)
            first_token(eager, self._tree)
        except Exception as error:
            self._report.startup[EagerRival.name] = Startup(failure=_reason(error))
            return
        self._report.startup[EagerRival.name] = Startup(load_s=time.perf_counter() - start)
        self.measure(eager)
        self._report.startup[EagerRival.name].memory_bytes = _memory_since(free)
        if device.type == "cuda":
            self._report.startup[CompiledRival.name] = Startup()
            self.measure(CompiledRival(eager.model, device))
        self.cold(EagerRival.name, "model", model, str(dtype).removeprefix("torch."))

    def measure(self, contender: Contender) -> None:
        """Fill a contender's cells."""
        for row in self._report.rows:
            out_of_time = contender.name != TreeContender.name and self._late
            row.cells[contender.name] = Cell(failure="no time left") if out_of_time else self._cell(contender, row.task)
            self._told(self._report)

    def cold(self, name: str, *arguments: str) -> None:
        """Measure a start in a new process."""
        startup = self._report.startup[name]
        if name != TreeContender.name and self._late:
            startup.failure = "no time left"
            return
        try:
            with stage("cold start", name):
                startup.cold_s = cold_seconds(*arguments)
        except Exception as error:
            startup.failure = _reason(error)
        self._told(self._report)

    @property
    def _late(self) -> bool:
        return time.perf_counter() - self._start > self._plan.seconds

    def _cell(self, contender: Contender, task: Task) -> Cell:
        try:
            with stage("bench", f"{contender.name}, {title(task)}"):
                return Cell(ms=time_of(contender, task, self._tree, self._plan.repeats))
        except Exception as error:
            _let_go()
            return Cell(failure=_reason(error))


def time_of(contender: Contender, task: Task, tree: EngineTree, repeats: int) -> float:
    """A contender's milliseconds for a task; of decoding, per step."""
    device = contender.device
    if task.kind == VISION:
        pixels = inputs.pictures(tree, task.batch).to(device)
        for _ in range(3):
            contender.features(pixels)
        return milliseconds(lambda: contender.features(pixels), device, repeats, burst=True)
    given = inputs.prompts(tree, task.batch, task.context, with_pictures=task.kind == ANSWER)

    def answered(count: int) -> Callable[[], object]:
        def work() -> None:
            made = contender.answer(given, count)
            assert all(len(tokens) == count for tokens in made), "an answer ended early"

        return work

    for _ in range(2):
        answered(min(3, 1 + task.new_tokens))()  # there is room for no more
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


def _let_go() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _free_bytes() -> int | None:
    if not torch.cuda.is_available():
        return None
    return torch.cuda.mem_get_info()[0]


def _memory_since(free: int | None) -> int:
    """GPU memory in use now that was free before; on a CPU the process's peak."""
    now = _free_bytes()
    return peak_resident_bytes() if free is None or now is None else free - now


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
