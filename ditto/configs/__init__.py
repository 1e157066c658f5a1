"""Build settings, as frozen attrs classes."""

from ditto.configs.limits import Limits
from ditto.configs.target_names import AUTO, TARGETS
from ditto.configs.tensorrt import TensorRTBuilderConfig, TensorRTConfig, TensorRTNetworkCreationFlags
from ditto.configs.trtllm import TrtllmConfig

__all__ = [
    "AUTO",
    "TARGETS",
    "Limits",
    "TensorRTBuilderConfig",
    "TensorRTConfig",
    "TensorRTNetworkCreationFlags",
    "TrtllmConfig",
]
