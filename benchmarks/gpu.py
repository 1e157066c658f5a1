"""The GPU that a benchmark needs."""

from __future__ import annotations

import argparse

import torch

from ditto.errors import DeviceError
from ditto.runtime.device import this_gpu


def gpu_for(parser: argparse.ArgumentParser) -> torch.device:
    """The GPU that torch uses; without one the command ends, and says why, before it does anything."""
    try:
        return this_gpu()
    except DeviceError as error:
        parser.error(error.cause)
