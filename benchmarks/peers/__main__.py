"""The CLIP-L/14-336 tower of benchmarks.clip_tower, built by Ditto, by TensorRT Edge-LLM's direct builder and by
torch-tensorrt-rtx: one checkpoint, float16, batch 1 to 4 tuned for 2, engines for no GPU in particular.

    python -m benchmarks.peers [--edge-llm PYTHON] [--torch-tensorrt PYTHON] [--rounds 3] [--work build/benchmarks]

PYTHON is the interpreter of an environment that has the peer (README.md says how to make one); a peer without one is
left out. Every build is a process of its own; a round is one build of each. Prints medians, as a table: seconds by the
clock (least to most) and of the processor, both after the imports; seconds of the whole process; peak resident memory
above what the imports took, and in all; and the engine's size.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from attrs import frozen

from benchmarks.clip_tower import checkpoint
from benchmarks.report import Report

ROOT = Path(__file__).parents[2]
ENGINE = "clip-l-336-engine"  # where benchmarks.clip_tower builds
NOTES = """\
Ditto outside: three static profiles (batch 1, 2, 4) where the others have one for every batch. Ditto's figures hold
checking, hashing and syncing the tree to the disk; the others write a file.
TensorRT Edge-LLM: has no CLIP; the tower is written out of its own modules. Its plugins, made for large TensorRT, are
not loaded; the tower uses none.
torch-tensorrt-rtx: no external weights (weightless engines must be refitted, which needs a GPU already to build them).
Without a GPU it does not load the engine that it has built, which is a part of its way otherwise."""


@frozen
class Entry:
    """A builder, where its weights go, and the command that builds and reports."""

    name: str
    weights: str
    command: tuple[str, ...]


@frozen
class Build:
    """One build: of the whole process, and what it said of itself."""

    process: float
    report: Report


def entries(work: Path, edge_llm: str | None, torch_tensorrt: str | None) -> list[Entry]:
    """What is compared; the peers whose interpreter is given."""
    source, out = str(checkpoint(work)), str(work / ENGINE)
    ditto = (sys.executable, "-m", "benchmarks.clip_tower", "--work", str(work))
    both = ("embedded", "external")
    optimize = {"embedded": "portable", "external": "latency"}
    found = [Entry("Ditto", weights, (*ditto, "--optimize", optimize[weights])) for weights in both]
    if edge_llm:
        command = (edge_llm, "-m", "benchmarks.peers.edge_llm", source, out)
        found += [Entry("TensorRT Edge-LLM", weights, (*command, "--weights", weights)) for weights in both]
    if torch_tensorrt:
        command = (torch_tensorrt, "-m", "benchmarks.peers.torch_tensorrt_rtx", source, out)
        found.append(Entry("torch-tensorrt-rtx", "embedded", command))
    return found


def run(entry: Entry, work: Path) -> Build:
    """Build once, from nothing; what the build prints goes to a file.

    Raises:
        SystemExit: it failed; says what it printed last.
    """
    shutil.rmtree(work / ENGINE, ignore_errors=True)
    report, log = work / "peers-report.json", work / "peers.log"
    report.unlink(missing_ok=True)
    with log.open("w") as printed:
        start = time.perf_counter()
        ended = subprocess.run(
            [*entry.command, "--report", str(report)], cwd=ROOT, stdout=printed, stderr=subprocess.STDOUT, check=False
        )
        seconds = time.perf_counter() - start
    if ended.returncode or not report.exists():
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise SystemExit(f"{entry.name}, weights {entry.weights}: exit code {ended.returncode}\n{last}")
    return Build(seconds, Report.read(report))


def table(results: Iterable[tuple[Entry, Sequence[Build]]]) -> str:
    """A row per builder, as Markdown."""
    lines = [
        "| builder | weights | after the imports | processor | whole process | peak above imports | in all | engine |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for entry, builds in results:
        reports = [build.report for build in builds]
        seconds = [report.seconds for report in reports]
        cells = (
            entry.name,
            entry.weights,
            f"{median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})",
            f"{median(report.processor for report in reports):.1f} s",
            f"{median(build.process for build in builds):.1f} s",
            f"{median(report.above for report in reports) / 1e9:.2f} GB",
            f"{median(report.peak for report in reports) / 1e9:.2f} GB",
            f"{reports[0].engine / 1e6:.1f} MB",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge-llm", metavar="PYTHON", help="interpreter with tensorrt-edgellm")
    parser.add_argument("--torch-tensorrt", metavar="PYTHON", help="interpreter with torch-tensorrt-rtx")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args()
    for option, peer in (("edge_llm", "TensorRT Edge-LLM"), ("torch_tensorrt", "torch-tensorrt-rtx")):
        if getattr(options, option) is None:
            print(f"{peer} is left out: no --{option.replace('_', '-')}")
    work = options.work.resolve()
    compared = entries(work, options.edge_llm, options.torch_tensorrt)
    builds: list[list[Build]] = [[] for _ in compared]
    for number in range(options.rounds):
        for entry, made in zip(compared, builds, strict=True):
            made.append(run(entry, work))
            load = os.getloadavg()[0]
            seconds = made[-1].report.seconds
            print(f"round {number + 1}: {entry.name}, {entry.weights}: {seconds:.1f} s (load {load:.1f})", flush=True)
    shutil.rmtree(work / ENGINE)
    results = list(zip(compared, builds, strict=True))
    print(f"\n{table(results)}\n\n{NOTES}\n")
    for name, versions in {entry.name: made[0].report.versions for entry, made in results}.items():
        print(f"{name}: {', '.join(f'{package} {version}' for package, version in versions.items())}")


if __name__ == "__main__":
    main()
