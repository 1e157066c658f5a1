"""A tree beside the model that it came from."""

from ditto.verify.check import verify
from ditto.verify.report import Verification

__all__ = ["Verification", "verify"]
