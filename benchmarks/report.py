"""What a build took from the end of the imports on: measured where it is built, read where builds are compared."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import tensorrt_rtx
from attrs import asdict, frozen

from benchmarks.memory import peak_bytes, resident_bytes


@frozen
class Report:
    """Seconds by the clock and of the processor after the imports; resident bytes when these had been made, and the
    most since; bytes of the engine; versions of what built it."""

    seconds: float
    processor: float
    imported: int
    peak: int
    engine: int
    versions: dict[str, str]

    @property
    def above(self) -> int:
        """The peak above what the imports took, in bytes."""
        return self.peak - self.imported

    def write(self, file: Path) -> None:
        """As JSON."""
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, file: Path) -> Report:
        """What `write` wrote."""
        return cls(**json.loads(file.read_text()))


@frozen
class Start:
    """The end of the imports."""

    seconds: float
    processor: float
    imported: int

    @classmethod
    def now(cls) -> Start:
        """Here."""
        return cls(time.perf_counter(), time.process_time(), resident_bytes())

    def report(self, engines: Sequence[Path], *packages: str) -> Report:
        """What has been taken since; `engines` are the engine's files, `packages` those whose versions matter beside
        TensorRT-RTX's."""
        return Report(
            time.perf_counter() - self.seconds,
            time.process_time() - self.processor,
            self.imported,
            peak_bytes(),
            sum(engine.stat().st_size for engine in engines),
            {**{package: version(package) for package in packages}, "tensorrt_rtx": tensorrt_rtx.__version__},
        )
