"""A process that compiles engines for another one, one at a time: orders come on stdin, what happens goes to stdout, as
lines of JSON.

It begins with little (no transformers), and ends with the process that it works for, however that ends.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import queue
import signal
import sys
import threading
import traceback
from typing import Any, TextIO

from attrs import asdict
from loguru import logger

from ditto import errors
from ditto.errors import DittoError, Place
from ditto.progress import StageRecord, listening
from ditto.targets.order import Order

_PR_SET_PDEATHSIG = 1


class Pipe:
    """The way back; a listener to stages that sends what it hears."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._lock = file, threading.Lock()

    def send(self, kind: str, *content: Any) -> None:
        """Send a message."""
        line = json.dumps([kind, *content]) + "\n"
        with self._lock:
            try:
                self._file.write(line)
                self._file.flush()
            except OSError:  # nobody is there any more; no exception could pass through TensorRT
                os._exit(1)

    def started(self, name: str, detail: str) -> None:
        """Send it."""
        self.send("started", name, detail)

    def advanced(self, name: str, detail: str, fraction: float) -> None:
        """Send it."""
        self.send("advanced", name, detail, fraction)

    def finished(self, record: StageRecord) -> None:
        """Send it."""
        self.send("finished", asdict(record))


def main(parent: int, log: bool) -> None:
    """Compile what is ordered until stdin ends.

    Args:
        parent: the process to work for.
        log: send log lines, too.
    """
    _end_with(parent)
    gc.set_threshold(100_000)  # as the command line does
    pipe = Pipe(os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is not ours to read
    logger.remove()
    if log:
        logger.add(lambda line: pipe.send("log", line.record["level"].name, line.record["message"]), level="DEBUG")
        logger.enable("ditto")
    orders: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin, orders), daemon=True).start()
    with listening(pipe):
        while True:
            _fulfil(orders.get(), pipe)


def _end_with(parent: int) -> None:
    """Have Linux kill this process when its parent ends, and end here if that is gone already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _read(file: TextIO, orders: queue.SimpleQueue[str]) -> None:
    for line in file:
        orders.put(line)
    os._exit(0)


def _fulfil(text: str, pipe: Pipe) -> None:
    try:
        library = Order.parse(text).fulfil()
    except DittoError as error:
        pipe.send("refused", *error_out(error))
    except OSError as error:
        pipe.send("disk", error.errno, error.strerror or str(error), error.filename)
    except BaseException:
        pipe.send("broken", traceback.format_exc())
    else:
        pipe.send("done", library)


def error_out(error: DittoError) -> list[Any]:
    """An error as JSON has it."""
    where = asdict(error.where) if isinstance(error.where, Place) else error.where
    return [type(error).__name__, error.cause, where, error.remedy]


def error_in(kind: str, cause: str, where: dict[str, str] | str | None, remedy: str | None) -> DittoError:
    """The error that `error_out` took apart."""
    cls: type[DittoError] = getattr(errors, kind)
    made = cls.__new__(cls)
    DittoError.__init__(made, cause, Place(**where) if isinstance(where, dict) else where, remedy)
    return made
