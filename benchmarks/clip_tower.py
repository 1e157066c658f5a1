"""Build time and peak memory of a CLIP-L/14-336 tower (304 M parameters, random float16 weights).

    python -m benchmarks.clip_tower [--work build/benchmarks] [--optimize latency] [--report FILE]

Prints seconds per stage, from the end of the imports, and peak resident memory above what the imports took, beside
the weights' size. FILE takes the whole build's as JSON.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import tensorrt_rtx  # noqa: F401 - what the imports cost is measured apart
import torch
import torch.export._trace  # noqa: F401 - imported with the first export otherwise
from transformers import CLIPVisionConfig, CLIPVisionModel

from benchmarks.checkpoints import write
from benchmarks.report import Start
from benchmarks.tower import Tower
from ditto import VisionBuilder
from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.builders import Pretrained
from ditto.engine import EngineTree

CONFIG: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}


def checkpoint(work: Path) -> Path:
    """The tower's, written below `work` unless it is there."""
    return write(work / "clip-l-336", CLIPVisionModel, CLIPVisionConfig(**CONFIG))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--optimize", choices=("portable", "latency"), default="portable")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    directory = checkpoint(options.work)
    weights = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    images = DynamicDimension("batch", 1, 2, 4)
    builder = VisionBuilder(
        source=Pretrained(str(directory), "AutoModel"),
        family="clip",
        inputs={"input": TensorTypeHint((images, 3, 336, 336), torch.float16)},
        wrap=Tower,
        target="tensorrt-rtx",
        max_batch_size=4,
        optimize=options.optimize,
        tuning="9.0" if options.optimize == "latency" else "none",
    )
    out = options.work / "clip-l-336-engine"
    shutil.rmtree(out, ignore_errors=True)
    start = Start.now()
    tree: EngineTree = builder.build(out)
    report = start.report([tree.root / file for file in tree.component("vision").engine_files], "torch", "transformers")
    for record in tree.manifest.stages:
        print(f"{record['name']:<10} {record['detail']:<12} {record['seconds']:6.2f} s")
    print(f"total after imports {report.seconds:6.2f} s")
    above, imported = report.above / 1e6, report.imported / 1e6
    print(f"peak resident {above:.0f} MB above imports ({imported:.0f} MB), weights {weights / 1e6:.0f} MB")
    print(f"ratio to weights {report.above / weights:.2f}")
    if options.report:
        report.write(options.report)


if __name__ == "__main__":
    main()
