"""Peak rates of a device: bytes and operations per second, measured once."""

from __future__ import annotations

import torch
from attrs import frozen

from ditto.bench.clock import milliseconds
from ditto.progress import stage


@frozen
class PeakRates:
    """Measured rates of a device.

    Args:
        bytes_per_s: reads and writes of a copy that exceeds every cache.
        flops_per_s: of a large matrix multiplication, two operations per multiply-add.
    """

    bytes_per_s: float
    flops_per_s: float

    def milliseconds(self, moved: float, flops: float) -> float:
        """The least time of work with this memory traffic and this many operations, which overlap."""
        return max(moved / self.bytes_per_s, flops / self.flops_per_s) * 1e3


def measure(device: torch.device, dtype: torch.dtype) -> PeakRates:
    """Measure `device` with matrices of `dtype`."""
    on_gpu = device.type == "cuda"
    with stage("peak_rates", str(device)):
        source = torch.ones((2**30 if on_gpu else 2**27) // 4, device=device)
        target = torch.empty_like(source)
        target.copy_(source)
        copy_ms = milliseconds(lambda: target.copy_(source), device, repeats=3, burst=True)
        moved = 2 * source.nbytes
        # CPUs multiply float16 far slower than float32; the peak is the faster of the two.
        size, dtypes = (8192, {dtype}) if on_gpu else (512, {dtype, torch.float32})
        product_ms = min(_product_ms(device, each, size) for each in dtypes)
    return PeakRates(bytes_per_s=moved / copy_ms * 1e3, flops_per_s=2 * size**3 / product_ms * 1e3)


def _product_ms(device: torch.device, dtype: torch.dtype, size: int) -> float:
    x = torch.randn(size, size, device=device).to(dtype)
    out = x @ x
    return milliseconds(lambda: torch.matmul(x, x, out=out), device, repeats=3, burst=True)
