"""Time of `ditto plan` on checkpoints of real shapes.

    python -m benchmarks.plan [--runs 5] [--models llava-7b llama-70b] [--target tensorrt-rtx] [--optimize portable]

A line per model: medians of wall and processor time of the whole command, imports included, and the most memory of its
own that it had. The checkpoints have true headers and holes for numbers, so they take no room.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from benchmarks.checkpoints import write_hollow
from benchmarks.described import Described, llama_70b, llava_7b
from benchmarks.memory import measured

MODELS: Mapping[str, Callable[[], Described]] = {"llava-7b": llava_7b, "llama-70b": llama_70b}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--target", default="tensorrt-rtx")
    parser.add_argument("--optimize", default="portable")
    options = parser.parse_args()
    settings = ["--target", options.target, "--optimize", options.optimize, "--batch", "4"]
    with tempfile.TemporaryDirectory() as work:
        for name in options.models:
            described = MODELS[name]()
            directory = write_hollow(Path(work) / name, described.cls, described.config)
            command = [sys.executable, "-m", "ditto", "--quiet", "plan", str(directory), *settings]
            runs = [measured(command) for _ in range(options.runs)]
            if any(run.code for run in runs):
                raise SystemExit(f"{name}: ditto plan failed, see above")
            wall, processor = median(run.seconds for run in runs), median(run.processor for run in runs)
            memory = max(run.anonymous for run in runs)
            print(
                f"{name:<9} {wall:6.1f} s   processor {processor:6.1f} s   anonymous {memory / 1e9:5.2f} GB", flush=True
            )


if __name__ == "__main__":
    main()
