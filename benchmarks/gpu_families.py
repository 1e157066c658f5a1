"""Tiny models of every family on a machine with a GPU: built there, and verified with the engines.

    python -m benchmarks.gpu_families --work DIRECTORY [--types TYPE ...]

Each family is built portable in float32 and float16, and for latency in float16. The exit code is 1 if one fails.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.gpu import gpu_for
from ditto import MultimodalModel
from ditto.errors import DittoError
from ditto.verify.check import verify
from ditto.verify.inputs import mixed
from tests.support.families import FAMILIES

NEW_TOKENS = 8
VARIANTS = (("portable", "float32"), ("portable", "float16"), ("latency", "float16"))


def verdict(checkpoint: Path, preset: str, dtype: str, out: Path) -> str:
    """The result for a family: verified, refused with the reason, or failed with what differs."""
    try:
        builders = MultimodalModel.from_pretrained(str(checkpoint)).with_batch(4).with_target("tensorrt-rtx")
        tree = builders.with_dtype(dtype).with_optimize(preset).build_all(out)
        result = verify(tree, mixed(tree, NEW_TOKENS), session="tensorrt", new_tokens=NEW_TOKENS)
    except DittoError as error:
        return f"refused: {error.cause}"
    return "verified" if result.passed else f"FAILED\n{result.text()}"


def main() -> int:
    """Print a line for each family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--types", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    options = parser.parse_args()
    gpu_for(parser)
    failed = 0
    for name in options.types:
        checkpoint = options.work / name / "checkpoint"
        try:
            FAMILIES[name].save(checkpoint)
        except Exception as error:  # its processor needs a library that is not here, or a newer transformers
            print(f"{name}: not made: {type(error).__name__}: {str(error)[:100]}", flush=True)
            continue
        for preset, dtype in VARIANTS:
            found = verdict(checkpoint, preset, dtype, options.work / name / preset)
            failed += found.startswith("FAILED")
            print(f"{name}, {preset}, {dtype}: {found}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
