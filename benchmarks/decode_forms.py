"""Decode attention as sums and as products, in whole networks: a choice of `ditto.targets.tensorrt.tuning`.

    python -m benchmarks.decode_forms --work DIRECTORY [--kv-heads 32 8 4] [--layers 8]

On a machine with a GPU. For each number of KV heads, layers of Llama's sizes with random float16 weights are built in
both forms and measured by `ditto bench`: milliseconds per decode step after 600 tokens, at 64 rows at most.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from attrs import evolve
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.checkpoints import write
from ditto import LlmBuilder
from ditto.targets.tensorrt import target
from ditto.targets.tensorrt.tuning import H200

FORMS = {"sums": 1 << 30, "products": 1}
"""The smallest number of rows that takes products, by the form that 64 rows have then."""

BATCHES = (1, 4, 16, 64)


def step_times(checkpoint: Path, form: str, work: Path) -> dict[int, float]:
    """Milliseconds of a decode step by batch size."""
    target.TUNINGS = {"9.0": evolve(H200, decode_products_from=FORMS[form])}
    tree = work / form
    builder = LlmBuilder.from_pretrained(str(checkpoint)).with_batch(BATCHES[-1]).with_max_seq_len(1024)
    builder = builder.with_max_input_len(700).with_opt_input_len(640).with_target("tensorrt-rtx")
    builder.with_optimize("latency").with_tuning("9.0").build(tree)
    batches = [str(batch) for batch in BATCHES]
    command = [sys.executable, "-m", "ditto", "-q", "bench", str(tree), "--batch", *batches, "--repeats", "3"]
    subprocess.run([*command, "--json", str(work / "bench.json")], stdout=subprocess.DEVNULL, check=True)
    shutil.rmtree(tree)
    rows = json.loads((work / "bench.json").read_text())["rows"]
    return {row["task"]["batch"]: row["cells"]["ditto"]["ms"] for row in rows if row["task"]["kind"] == "decode"}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--kv-heads", type=int, nargs="+", default=[32, 8, 4])
    parser.add_argument("--layers", type=int, default=8)
    options = parser.parse_args()
    print(
        "| KV heads | form |"
        + "".join(f" batch {batch} |" for batch in BATCHES)
        + "\n|---|---|"
        + "---|" * len(BATCHES)
    )
    for heads in options.kv_heads:
        config = LlamaConfig(
            hidden_size=4096,
            intermediate_size=11008,
            num_hidden_layers=options.layers,
            num_attention_heads=32,
            num_key_value_heads=heads,
            vocab_size=32064,
            max_position_embeddings=4096,
        )
        checkpoint = write(options.work / f"kv{heads}", LlamaForCausalLM, config, device="cuda")
        for form in FORMS:
            times = step_times(checkpoint, form, options.work)
            cells = "".join(f" {times[batch]:.2f} |" for batch in BATCHES)
            print(f"| {heads} | {form} |{cells}", flush=True)


if __name__ == "__main__":
    main()
