"""Models of real shapes on a machine with a GPU: built there for latency and measured beside Hugging Face.

    python -m benchmarks.gpu_shapes --work DIRECTORY [--shapes NAME ...] [--layers N] [--seconds S]

The weights are random. `--layers` keeps the first layers of the decoder alone, and of a tower: what one layer takes
follows from two runs. Each part is a process of its own: a failed or hung one is told, and the rest goes on.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from attrs import frozen

from benchmarks.checkpoints import write
from benchmarks.gpu import gpu_for


@frozen(kw_only=True)
class Shape:
    """A model's shape and how it is measured.

    Args:
        model: its class in transformers.
        config: makes its configuration.
        batches, contexts: of the bench.
        build: further options of `ditto build`.
    """

    model: str
    config: Callable[[], Any]
    batches: Sequence[int] = (1, 4)
    contexts: Sequence[int] = (600,)
    build: Sequence[str] = ()

    @property
    def limits(self) -> list[str]:
        """Limits that hold every measurement."""
        longest = max(self.contexts) + 40
        lengths = {"--max-input-len": longest, "--opt-input-len": max(self.contexts), "--max-seq-len": longest + 384}
        sizes = {"--batch": max(self.batches), **lengths}
        return [text for option, value in sizes.items() for text in (option, str(value))]


def _llama_8b() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )


def _qwen3_30b_a3b() -> Any:
    from transformers import Qwen3MoeConfig

    config = Qwen3MoeConfig(
        vocab_size=151936,
        hidden_size=2048,
        intermediate_size=6144,
        moe_intermediate_size=768,
        num_hidden_layers=48,
        num_attention_heads=32,
        num_key_value_heads=4,
        num_experts=128,
        num_experts_per_tok=8,
        norm_topk_prob=True,
        max_position_embeddings=40960,
    )
    config.head_dim = 128  # not half of it, which would follow from the others
    return config


def _mixtral_8x7b() -> Any:
    from transformers import MixtralConfig

    return MixtralConfig(sliding_window=None)


def _qwen2_5_vl_7b() -> Any:
    from transformers import Qwen2_5_VLConfig

    text = {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }
    vision = {"hidden_size": 1280, "out_hidden_size": 3584, "intermediate_size": 3420, "depth": 32, "num_heads": 16}
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision)


SHAPES: Mapping[str, Shape] = {
    "llama-3.1-8b": Shape(model="LlamaForCausalLM", config=_llama_8b, batches=(1, 16, 64), contexts=(600,)),
    "qwen3-30b-a3b": Shape(model="Qwen3MoeForCausalLM", config=_qwen3_30b_a3b, batches=(1, 8)),
    "mixtral-8x7b": Shape(model="MixtralForCausalLM", config=_mixtral_8x7b, batches=(1, 8)),
    "qwen2.5-vl-7b": Shape(
        model="Qwen2_5_VLForConditionalGeneration",
        config=_qwen2_5_vl_7b,
        contexts=(1600,),
        build=("--max-image-size", "1024x1024"),
    ),
}


def config_of(name: str, layers: int | None) -> Any:
    """The configuration of a shape, of its first layers alone."""
    config = SHAPES[name].config()
    if layers is not None:
        for part, setting in ((config.get_text_config(), "num_hidden_layers"), (_tower(config), "depth")):
            if part is not None:
                setattr(part, setting, min(layers, getattr(part, setting)))
                if getattr(part, "layer_types", None):
                    part.layer_types = part.layer_types[:layers]
    return config


def _tower(config: Any) -> Any:
    return getattr(config, "vision_config", None)


def main() -> int:
    """Build and measure each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--seconds", type=float, default=60, help="then no measurement of a baseline begins")
    parser.add_argument("--quantize", choices=("int4", "int8"))
    parser.add_argument("--build-only", action="store_true", help="needs no GPU")
    options = parser.parse_args()
    if not options.build_only:
        gpu_for(parser)
    failed = 0
    for name in options.shapes:
        failed += not _measured(name, SHAPES[name], options)
        shutil.rmtree(options.work / name, ignore_errors=True)
    return 1 if failed else 0


def _measured(name: str, shape: Shape, options: Any) -> bool:
    work = options.work / name
    start = time.perf_counter()
    config = config_of(name, options.layers)
    cls = getattr(transformers, SHAPES[name].model)
    write(work / "checkpoint", cls, config, device="cuda" if torch.cuda.is_available() else "cpu")
    print(f"== {name}: checkpoint, {time.perf_counter() - start:.1f} s", flush=True)
    ditto, tree = [sys.executable, "-m", "ditto"], str(work / "tree")
    quantized = [] if options.quantize is None else ["--quantize", options.quantize, "--weights", "embedded"]
    place = ["--target", "tensorrt-rtx", "--optimize", "latency", *quantized]
    commands = [[*ditto, "build", str(work / "checkpoint"), "-o", tree, *shape.limits, *shape.build, *place]]
    if not options.build_only:
        sizes = ["--batch", *map(str, shape.batches), "--context", *map(str, shape.contexts)]
        commands.append([*ditto, "bench", tree, "--session", "tensorrt", "--against", *sizes, "--repeats", "3"])
        commands[-1] += ["--seconds", str(options.seconds), "--new-tokens", "32"]
    for command in commands:
        start = time.perf_counter()
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        told = "done" if ended.returncode == 0 else f"ended with {ended.returncode}"
        print(f"== {name}: {command[3]} {told}, {time.perf_counter() - start:.1f} s", flush=True)
        print("\n".join(ended.stdout.splitlines()[-30:]), flush=True)
        if ended.returncode:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
