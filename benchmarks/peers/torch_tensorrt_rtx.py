"""The CLIP tower with torch-tensorrt-rtx, in an environment of its own; benchmarks.peers runs it.

What it asks of a GPU is stood in for; nothing of that is building, and it is spared some work:

- its C++ runtime, which needs a CUDA PyTorch, is not loaded; the Python one serves;
- the device's number and compute capability are given, and a type for annotations that only CUDA builds have;
- the engine is not loaded after it is built, only to be serialized once more: its bytes are taken as they are.
"""

from __future__ import annotations

import argparse
import os.path
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from transformers import CLIPVisionModel

from benchmarks.report import Start
from benchmarks.tower import Tower


class Built:
    """An engine that was not loaded."""

    def __init__(self, plan: Any) -> None:
        self.plan = plan

    def serialize(self) -> Any:
        return self.plan

    def get_aliased_input_tensor(self, name: str) -> None:
        """Only caches are aliased, and the tower has none."""


class Loader:
    """TensorRT's runtime, where no GPU can load an engine."""

    def __init__(self, logger: Any) -> None:
        pass

    def deserialize_cuda_engine(self, plan: Any) -> Built:
        return Built(plan)


@contextmanager
def without_gpu() -> Iterator[Any]:
    """torch_tensorrt, with what it would ask of a GPU stood in for."""
    found = os.path.isfile

    def is_file(path: Any) -> bool:
        return "libtorchtrt" not in str(path) and found(path)

    with (
        mock.patch("torch.cuda.current_device", return_value=0),
        mock.patch("torch.cuda.get_device_capability", return_value=(8, 9)),
        mock.patch("torch._C._CudaDeviceProperties", object, create=True),
    ):
        with mock.patch("os.path.isfile", is_file):
            import torch_tensorrt
        from torch_tensorrt.dynamo.conversion import _TRTInterpreter

        with mock.patch.object(_TRTInterpreter.trt, "Runtime", Loader):
            yield torch_tensorrt


def build(torch_tensorrt: Any, checkpoint: Path, out: Path) -> Path:
    """Read, export and compile, as its documentation says for a serialized engine; weights are embedded."""
    model = CLIPVisionModel.from_pretrained(checkpoint, dtype=torch.float16).eval()
    batch = torch.export.Dim("batch", min=1, max=4)
    image = (model.config.num_channels, model.config.image_size, model.config.image_size)
    pixels = torch.zeros(2, *image, dtype=torch.float16)
    with torch.no_grad():
        program = torch.export.export(Tower(model), (pixels,), dynamic_shapes=({0: batch},))
    shapes = {f"{name}_shape": (size, *image) for name, size in (("min", 1), ("opt", 2), ("max", 4))}
    plan = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        program,
        arg_inputs=[torch_tensorrt.Input(**shapes, dtype=torch.float16)],
        require_full_compilation=True,
        min_block_size=1,
        offload_module_to_cpu=True,
    )
    out.mkdir(parents=True, exist_ok=True)
    engine = out / "visual.engine"
    engine.write_bytes(plan)
    return engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--report", type=Path, required=True)
    options = parser.parse_args()
    with without_gpu() as torch_tensorrt:
        start = Start.now()
        engine = build(torch_tensorrt, options.checkpoint, options.out)
        report = start.report([engine], "torch-tensorrt-rtx", "torch", "transformers")
    report.write(options.report)


if __name__ == "__main__":
    main()
