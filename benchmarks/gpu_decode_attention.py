"""Decode attention in every form, for several numbers of KV heads and rows, beside PyTorch's.

    python -m benchmarks.gpu_decode_attention [--heads 32 32] [--heads 32 4] [--batch 1 4 16 64]

Each form gets an engine of its own and runs over as many caches as keep it out of the L2 cache. Heads have 128 columns;
640 tokens are in a cache of 1024 slots, of which 768 are read. The decoder's form is chosen by these figures.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from benchmarks import token_forms
from benchmarks.gpu import gpu_for
from benchmarks.gpu_forms import Bench, survey
from ditto.bindings import load_native

_WIDTH = 128
_DEFAULT = [[32, 32], [32, 8], [32, 4]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, nargs=2, action="append", metavar=("HEADS", "KV_HEADS"))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16, 64])
    options = parser.parse_args()
    trt, device = load_native("tensorrt_rtx"), gpu_for(parser)
    print(f"{torch.cuda.get_device_name(device)}, {trt.title}, torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(trt, device, Path(directory))
        for heads, kv_heads in options.heads or _DEFAULT:
            print(f"{heads} heads, {kv_heads} KV heads", flush=True)
            case = token_forms.attention(1, heads, _WIDTH, kv_heads=kv_heads)
            found = list(survey([case], options.batch, bench, float("inf")))
            for batch in options.batch:
                rows = {each.form: each for each in found if each.batch == batch}
                times = ", ".join(f"{name} {each.ms * 1e3:.1f}" for name, each in rows.items())
                by_torch = next((f"{each.torch_ms * 1e3:.1f}" for each in rows.values()), "-")
                print(f"| {heads} | {kv_heads} | {batch} | {times} | PyTorch {by_torch} |", flush=True)


if __name__ == "__main__":
    main()
