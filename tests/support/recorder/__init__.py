"""A recording stand-in for TensorRT 10.9 and TensorRT-LLM's plugin library.

`recording_tensorrt(version)` gives an object with as much of the `tensorrt` module as emission and compilation use. It
keeps the layers for tests to look at, infers shapes and dtypes by TensorRT's rules for strongly typed networks, and
refuses what TensorRT would refuse: it logs an error and returns None, as TensorRT does. Plugin creators, their fields
and inputs come from the conformance tables.
"""

from tests.support.recorder.emitting import Zeros, compiled, recorded
from tests.support.recorder.module import Recorder, recording_tensorrt

__all__ = ["Recorder", "Zeros", "compiled", "recorded", "recording_tensorrt"]
