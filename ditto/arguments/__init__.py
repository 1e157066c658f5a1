"""Types of engine inputs whose sizes vary at run time."""

from ditto.arguments.dynamic_dimension import DynamicDimension
from ditto.arguments.tensor_type_hint import TensorTypeHint

__all__ = ["DynamicDimension", "TensorTypeHint"]
