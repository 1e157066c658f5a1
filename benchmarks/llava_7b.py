"""Time and memory of `ditto plan` and `ditto build` on a checkpoint of LLaVA-1.5-7B's shape (random float16 weights,
14 GB).

    nice python -m benchmarks.llava_7b --work DIRECTORY [--steps copy plan external embedded trtllm] [--keep]

DIRECTORY needs 50 GB. A line per step: wall and processor time of the whole command, imports included, and the most
memory it had resident: anonymous (its own) and in all (with pages of mapped files, which the system may take back).
`copy` is a plain copy of the checkpoint, the measure of the disk. What is made is deleted at the end, the checkpoint
kept with --keep.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.checkpoints import write
from benchmarks.described import llava_7b
from benchmarks.memory import Measured, measured

STEPS = ("copy", "plan", "external", "embedded", "trtllm")


def commands(checkpoint: Path, out: Path) -> Mapping[str, list[str]]:
    """The steps' command lines."""
    ditto = [sys.executable, "-m", "ditto"]
    build = [*ditto, "build", str(checkpoint), "-o", str(out), "--batch", "4"]
    return {
        "copy": ["cp", "-r", str(checkpoint), str(out)],
        "plan": [*ditto, "plan", str(checkpoint), "--target", "tensorrt-rtx", "--batch", "4"],
        "external": [*build, "--target", "tensorrt-rtx", "--optimize", "latency", "--tuning", "9.0"],
        "embedded": [*build, "--target", "tensorrt-rtx"],
        "trtllm": [*build, "--target", "trtllm"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--keep", action="store_true", help="keep the checkpoint")
    options = parser.parse_args()
    described = llava_7b()
    checkpoint = write(options.work / "llava-7b", described.cls, described.config)
    out = options.work / "out"
    print(f"checkpoint {_directory_bytes(checkpoint) / 1e9:.2f} GB", flush=True)
    found: dict[str, Measured] = {}
    for step in options.steps:
        shutil.rmtree(out, ignore_errors=True)
        found[step] = measured(commands(checkpoint, out)[step])
        print(f"{step:<8} {found[step]}   written {_directory_bytes(out) / 1e9:6.2f} GB", flush=True)
    if {"copy", "embedded"} <= found.keys() and not found["embedded"].code:
        allowed = 3 * found["copy"].seconds + 60
        print(f"embedded: {found['embedded'].seconds:.0f} s of {allowed:.0f} s (3 copies + 60 s)")
    shutil.rmtree(out, ignore_errors=True)
    if not options.keep:
        shutil.rmtree(checkpoint)


def _directory_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


if __name__ == "__main__":
    main()
