"""Time from export to the final network of a Llama of width 256, by depth.

    python -m benchmarks.depth [--layers 8 16 32 64]

A line per depth: seconds of each stage, of all, and per layer. Time per layer should not grow with depth.
"""

from __future__ import annotations

import argparse
import time

from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.described import Described
from benchmarks.memory import peak_bytes, resident_bytes
from ditto import LlmBuilder
from ditto.builders.describe import describe
from ditto.progress import recording


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[8, 16, 32, 64])
    options = parser.parse_args()
    imported = resident_bytes()
    _seconds(2)  # what is done once per process
    for layers in options.layers:
        stages, total = _seconds(layers)
        shown = "  ".join(f"{name} {seconds:5.2f}" for name, seconds in stages.items())
        print(f"{layers:3} layers: {shown}  all {total:6.2f} s  per layer {1000 * total / layers:6.1f} ms")
    print(f"peak resident {(peak_bytes() - imported) / 1e6:.0f} MB above imports")


def _seconds(layers: int) -> tuple[dict[str, float], float]:
    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=512,
        max_position_embeddings=2048,
    )
    builder = LlmBuilder(source=Described(LlamaForCausalLM, config), target="tensorrt-rtx", max_batch_size=4)
    target = builder.resolved_target()
    start = time.perf_counter()
    with recording() as records:
        describe(builder.part(target), target, builder.build_settings)
    return {record.name: record.seconds for record in records}, time.perf_counter() - start


if __name__ == "__main__":
    main()
