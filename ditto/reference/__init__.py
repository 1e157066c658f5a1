"""Reference execution of networks in PyTorch."""

from ditto.reference.run import Constants, run, watching
from ditto.reference.tolerance import RELATIVE_ERROR, TF32_RELATIVE_ERROR, TOLERANCE, relative_error, severity

__all__ = [
    "RELATIVE_ERROR",
    "TF32_RELATIVE_ERROR",
    "TOLERANCE",
    "Constants",
    "relative_error",
    "run",
    "severity",
    "watching",
]
