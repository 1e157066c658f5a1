"""Engines that compile side by side, in processes of their own.

TensorRT-RTX's builder uses one core, and in threads of one process two take hardly less time than one after the other:
they wait for the same allocator. `multiprocessing` would run the user's script again in each process, hence not it.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import IO, Any

from attrs import define
from loguru import logger

from ditto.allocator import with_allocator
from ditto.engine import held_locks
from ditto.errors import BuildError
from ditto.progress import StageRecord, listening_now
from ditto.targets.order import Order
from ditto.targets.worker import error_in

_PROGRAM = "import sys; sys.path[:] = sys.argv[3:]; from ditto.targets.worker import main; main({}, {})"
_PROGRAM = _PROGRAM.format("int(sys.argv[1])", "sys.argv[2] == 'log'")


@define(eq=False)
class Worker:
    """A process, and what it compiles now."""

    process: subprocess.Popen[bytes]
    order: Order | None = None
    rest: bytes = b""

    @property
    def out(self) -> IO[bytes]:
        """What comes from it."""
        assert self.process.stdout is not None
        return self.process.stdout

    def take(self, order: Order) -> None:
        """Have an engine compiled."""
        self.order = order
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(order.text().encode() + b"\n")
        except BrokenPipeError:
            raise self.ended() from None

    def messages(self) -> list[list[Any]]:
        """What it has said since.

        Raises:
            BuildError: it has ended.
        """
        read = os.read(self.out.fileno(), 1 << 16)
        if not read:
            raise self.ended()
        *lines, self.rest = (self.rest + read).split(b"\n")
        return [json.loads(line) for line in lines]

    def ended(self) -> BuildError:
        """The process has ended, which it should not."""
        code, name = self.process.wait(), self.order.component if self.order else "an"
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        memory = "; if memory ran out (see dmesg)" if code == -signal.SIGKILL else ""
        return BuildError(
            f"the process that compiled the {name} engine {how}",
            remedy=f"compile one engine after the other, with --jobs 1{memory}",
        )


def compile_side_by_side(orders: Iterable[Order], count: int) -> dict[str, str]:
    """Compile engines in up to `count` processes; returns the library that did, and its version, by component.

    Raises:
        DittoError: one could not be compiled; the others are stopped, and no process is left.
        OSError: the disk took no more.
    """
    waiting = sorted(orders, key=lambda order: order.work)  # the longest first: taken from the end
    made: dict[str, str] = {}
    log: list[bool] = []
    names = ", ".join(order.component for order in reversed(waiting))
    logger.opt(lazy=True).debug("{} compile side by side", lambda: log.append(True) or names)  # called if it is wanted
    with _workers(min(count, len(waiting)), bool(log)) as workers, selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.out, selectors.EVENT_READ, worker)
            worker.take(waiting.pop())
        while any(worker.order for worker in workers):
            for key, _ in selector.select():
                worker: Worker = key.data
                for kind, *content in worker.messages():
                    if kind != "done":
                        _hear(worker, kind, content)
                        continue
                    assert worker.order is not None
                    made[worker.order.component], worker.order = content[0], None
                    if waiting:
                        worker.take(waiting.pop())
                if worker.order is None:
                    selector.unregister(worker.out)
    return made


@contextmanager
def _workers(count: int, log: bool) -> Generator[Sequence[Worker]]:
    """Processes that wait for orders. None is left afterwards; they hold nothing that would have to be put right."""
    arguments = [str(os.getpid()), "log" if log else "", *sys.path]
    workers: list[Worker] = []
    try:
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env=with_allocator(os.environ),
                pass_fds=held_locks(),
                start_new_session=True,  # Ctrl-C goes to this process alone
            )
            workers.append(Worker(process))
        yield workers
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.__exit__(None, None, None)  # closes pipes and waits


def _hear(worker: Worker, kind: str, content: Sequence[Any]) -> None:
    if kind == "started":
        listening_now().started(*content)
    elif kind == "advanced":
        listening_now().advanced(*content)
    elif kind == "finished":
        listening_now().finished(StageRecord(**content[0]))
    elif kind == "log":
        logger.log(content[0], "{}", content[1])
    elif kind == "refused":
        raise error_in(*content)
    elif kind == "disk":
        raise OSError(*content)
    else:
        component = worker.order.component if worker.order else ""
        raise RuntimeError(f"the {component} engine could not be compiled:\n{content[0]}")
