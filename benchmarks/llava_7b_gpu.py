"""LLaVA-1.5-7B's shape on a machine with a GPU: built there, measured beside Hugging Face, held against it.

    python -m benchmarks.llava_7b_gpu --work DIRECTORY [--results DIRECTORY] [--optimize portable|latency] [--parts ...]

DIRECTORY needs 30 GB (random float16 weights and engines). Each part is a process of its own: a failed or hung one is
told, and the rest goes on. RESULTS gets bench.json, bench.png where matplotlib is installed, verify.out (JSON), and
what each part said. The table sets what was measured beside what is wanted of an H200; the exit code is 1 if anything
failed or fell short.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen

from benchmarks.checkpoints import write
from benchmarks.described import llava_7b
from benchmarks.gpu import gpu_for

PARTS = ("checkpoint", "build", "bench", "verify")
# Milliseconds wanted for (kind, batch) of the bench's rows.
WANTED = {
    ("vision", 1): 1.8,
    ("vision", 4): 4.5,
    ("prefill", 1): 17.0,
    ("prefill", 4): 60.0,
    ("decode", 1): 4.5,
    ("decode", 4): 4.8,
    ("answer", 2): 700.0,
}
WANTED_COLD_S = 6.0
CONTENDERS = ("ditto", "hugging face", "hugging face, compiled")


@frozen
class Run:
    """Where everything is, and how the tree is built."""

    work: Path
    results: Path
    optimize: str
    seconds: float
    python: tuple[str, ...] = field(default=(sys.executable, "-m"))

    @property
    def checkpoint(self) -> Path:
        return self.work / "checkpoint"

    @property
    def tree(self) -> Path:
        return self.work / "tree"

    def command(self, part: str) -> list[str]:
        """A part's command line."""
        ditto = [*self.python, "ditto"]
        if part == "checkpoint":
            return [*self.python, "benchmarks.llava_7b_gpu", "--work", str(self.work), "--write-checkpoint"]
        if part == "build":
            limits = ["--batch", "4", "--max-input-len", "640", "--max-seq-len", "1024"]
            place = ["--target", "tensorrt-rtx", "--optimize", self.optimize]
            return [*ditto, "build", str(self.checkpoint), "-o", str(self.tree), *limits, *place]
        if part == "bench":
            plot = ["--plot", str(self.results / "bench.png")] if importlib.util.find_spec("matplotlib") else []
            figures = ["--json", str(self.results / "bench.json"), *plot]
            what = ["--batch", "1", "4", "--context", "600", "--seconds", str(self.seconds)]
            return [*ditto, "bench", str(self.tree), "--session", "tensorrt", "--against", *what, *figures]
        return [*ditto, "verify", str(self.tree), "--session", "tensorrt", "--json"]

    def part(self, name: str, limit_s: float) -> str | None:
        """Run a part; returns what went wrong, None for nothing."""
        start = time.perf_counter()
        log, out = self.results / f"{name}.log", self.results / f"{name}.out"
        try:
            with log.open("w") as told_to, out.open("w") as file:
                code = subprocess.run(
                    self.command(name), stdout=file, stderr=told_to, timeout=limit_s, check=False
                ).returncode
            told = None if code == 0 else f"ended with {code}"
        except subprocess.TimeoutExpired:
            told = f"took more than {limit_s:.0f} s"
        print(f"== {name}: {told or 'done'}, {time.perf_counter() - start:.1f} s", flush=True)
        print("\n".join([*log.read_text().splitlines()[-40:], *out.read_text().splitlines()[-60:]]), flush=True)
        return told


def table(data: dict[str, Any]) -> tuple[list[str], bool]:
    """The figures of bench.json beside those wanted, and whether all of those are reached."""
    lines = [f"| | {' | '.join(CONTENDERS)} | floor | wanted | |", "|---|---|---|---|---|---|---|"]
    reached = True
    for row in data["rows"]:
        task = row["task"]
        wanted = WANTED.get((task["kind"], task["batch"]))
        ms = row["cells"].get("ditto", {}).get("ms")
        verdict = "" if wanted is None else "reached" if ms is not None and ms <= wanted else "missed"
        reached = reached and verdict != "missed"
        times = " | ".join(_told(row["cells"].get(name)) for name in CONTENDERS)
        label = f"{task['kind']}, batch {task['batch']}" + (f", {task['context']} tokens" if task["context"] else "")
        lines.append(f"| {label} | {times} | {row['roofline_ms']:.2f} | {wanted or ''} | {verdict} |")
    cold = {name: start.get("cold_s") for name, start in data["startup"].items()}
    ours = cold.get("ditto")
    verdict = "reached" if ours is not None and ours <= WANTED_COLD_S else "missed"
    seconds = " | ".join("-" if cold.get(name) is None else f"{cold[name]:.2f} s" for name in CONTENDERS)
    lines.append(f"| new process to a first token | {seconds} | | {WANTED_COLD_S:.0f} s | {verdict} |")
    memory = {name: start.get("memory_bytes") for name, start in data["startup"].items()}
    told = (f"{size / 1e9:.1f} GB" if (size := memory.get(name)) else "-" for name in CONTENDERS)
    lines.append(f"| memory | {' | '.join(told)} | | | |")
    return lines, reached and verdict == "reached"


def _told(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "-"
    return f"{cell['ms']:.2f}" if cell["ms"] is not None else str(cell["failure"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, help="default: DIRECTORY/results")
    parser.add_argument("--optimize", choices=("portable", "latency"), default="portable")
    parser.add_argument("--seconds", type=float, default=240, help="then no measurement of a baseline begins")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--write-checkpoint", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    run = Run(options.work, options.results or options.work / "results", options.optimize, options.seconds)
    if options.write_checkpoint:
        described = llava_7b()
        write(run.checkpoint, described.cls, described.config, device="cuda" if torch.cuda.is_available() else "cpu")
        return 0
    gpu_for(parser)
    run.results.mkdir(parents=True, exist_ok=True)
    limits = {"checkpoint": 180, "build": 240, "bench": options.seconds + 150, "verify": 180}
    wrong = {name: told for name in options.parts if (told := run.part(name, limits[name])) is not None}
    passed = not wrong
    figures = run.results / "bench.json"
    if figures.exists():
        lines, reached = table(json.loads(figures.read_text()))
        print("\n".join(["", *lines]))
        passed = passed and reached
    for name, told in wrong.items():
        print(f"{name} {told}: see {run.results / name}.log")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
