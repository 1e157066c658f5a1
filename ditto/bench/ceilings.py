"""What a device can do at most: bytes and operations per second, measured once."""

from __future__ import annotations

import torch
from attrs import frozen

from ditto.bench.clock import milliseconds
from ditto.progress import stage


@frozen
class Ceilings:
    """Measured rates of a device.

    Args:
        bytes_per_s: read and written by a copy too large for any cache.
        flops_per_s: of a large matrix product, two operations per multiply-add.
    """

    bytes_per_s: float
    flops_per_s: float

    def milliseconds(self, moved: float, flops: float) -> float:
        """The least time of work that moves so many bytes and does so many operations, both at once."""
        return max(moved / self.bytes_per_s, flops / self.flops_per_s) * 1e3


def measure(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """The rates of `device` for matrices of `dtype`."""
    on_gpu = device.type == "cuda"
    with stage("ceilings", str(device)):
        source = torch.ones((2**30 if on_gpu else 2**27) // 4, device=device)
        target = torch.empty_like(source)
        target.copy_(source)
        copy_ms = milliseconds(lambda: target.copy_(source), device, repeats=3, burst=True)
        moved = 2 * source.nbytes
        # CPUs multiply halves far below the speed of their floats: a ceiling is the best that the device has.
        size, dtypes = (8192, {dtype}) if on_gpu else (512, {dtype, torch.float32})
        product_ms = min(_product_ms(device, each, size) for each in dtypes)
    return Ceilings(bytes_per_s=moved / copy_ms * 1e3, flops_per_s=2 * size**3 / product_ms * 1e3)


def _product_ms(device: torch.device, dtype: torch.dtype, size: int) -> float:
    x = torch.randn(size, size, device=device).to(dtype)
    out = x @ x
    return milliseconds(lambda: torch.matmul(x, x, out=out), device, repeats=3, burst=True)
