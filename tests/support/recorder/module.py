"""The module itself: enumerations, logger, builder, profiles."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any

from ditto.bindings import TensorRT
from tests.support.conformance.tables import load_tables
from tests.support.recorder.definition import Definition, Tensor
from tests.support.recorder.plugins import PluginField, Registry


class _Severity(Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class _Logger:
    """`ILogger`."""

    Severity = _Severity

    def __init__(self) -> None:
        pass


class _ProgressMonitor:
    """`IProgressMonitor`."""

    def __init__(self) -> None:
        pass


class Weights:
    """`Weights`: of a dtype, without numbers or at an address."""

    def __init__(self, dtype: Any, pointer: int = 0, count: int = 0) -> None:
        self.dtype, self.pointer, self.count = dtype, pointer, count


class Profile:
    """`IOptimizationProfile`."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        if len(shapes) != 3 or not all(a <= b <= c for a, b, c in zip(*shapes, strict=True)):
            raise ValueError(f"the profile of {name} is not min <= opt <= max: {shapes}")
        self.shapes[name] = tuple(map(tuple, shapes))


class BuilderConfig:
    """`IBuilderConfig`."""

    builder_optimization_level = 3
    max_aux_streams = 0
    progress_monitor: Any = None

    def __init__(self) -> None:
        self.flags: set[Any] = set()
        self.profiles: list[Profile] = []
        self.limits: dict[Any, int] = {}

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.limits[pool] = size

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1


class _Builder:
    """`Builder`: of one recorder."""

    trt: Recorder

    def __init__(self, log: Any) -> None:
        self._log = log

    def create_network(self, flags: int = 0) -> Definition:
        if not flags >> int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) & 1:
            raise ValueError("the stand-in knows strongly typed networks only")
        return Definition(self.trt, self._log)

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, definition: Definition, config: BuilderConfig) -> memoryview | None:
        """What the recorder remembers, in place of an engine; None and a logged error for what cannot be built."""
        for problem in self._problems(definition, config):
            self._log.log(_Severity.ERROR, problem)
            return None
        self.trt.built.append((definition, config))
        return memoryview(f"recorded: {len(definition.layers)} layers".encode())

    def _problems(self, definition: Definition, config: BuilderConfig) -> list[str]:
        found = [] if definition.outputs else ["the network has no output"]
        dynamic = [tensor for tensor in definition.inputs if -1 in tensor.shape]
        if dynamic and not config.profiles:
            found.append("a network with dynamic inputs needs an optimisation profile")
        for profile in config.profiles:
            found += _profile_problems(profile, dynamic)
        return found


def _profile_problems(profile: Profile, dynamic: list[Tensor]) -> list[str]:
    found: list[str] = []
    sizes: dict[tuple[str, int], int] = {}
    for tensor in dynamic:
        shapes = profile.shapes.get(tensor.name)
        if shapes is None:
            found.append(f"the profile has no range for {tensor.name}")
            continue
        for end, shape in enumerate(shapes):
            if any(want not in (-1, have) for want, have in zip(tensor.shape, shape, strict=True)):
                found.append(f"the profile gives {tensor.name} {shape}, the network {tensor.shape}")
            for axis, name in tensor.dimension_names.items():
                if sizes.setdefault((name, end), shape[axis]) != shape[axis]:
                    found.append(f"dimension {name} has two ranges")
    return found


_ENUMS = {
    "DataType": "FLOAT HALF INT8 INT32 BOOL UINT8 FP8 BF16 INT64 INT4",
    "ElementWiseOperation": "SUM PROD MAX MIN SUB DIV POW FLOOR_DIV AND OR XOR EQUAL GREATER LESS",
    "UnaryOperation": "EXP LOG SQRT RECIP ABS NEG SIN COS TAN FLOOR CEIL ERF NOT SIGN ROUND ISINF ISNAN",
    "ActivationType": "RELU SIGMOID TANH LEAKY_RELU ELU SELU SOFTSIGN SOFTPLUS CLIP HARD_SIGMOID GELU_ERF GELU_TANH",
    "ReduceOperation": "SUM PROD MAX MIN AVG",
    "MatrixOperation": "NONE TRANSPOSE VECTOR",
    "FillOperation": "LINSPACE RANDOM_UNIFORM RANDOM_NORMAL",
    "NetworkDefinitionCreationFlag": "EXPLICIT_BATCH STRONGLY_TYPED",
    "BuilderFlag": "FP16 BF16 TF32",
    "MemoryPoolType": "WORKSPACE",
    "PluginFieldType": "FLOAT16 FLOAT32 FLOAT64 INT8 INT16 INT32 INT64",
}


class Recorder:
    """What stands for the module `tensorrt`.

    Args:
        version: of TensorRT-LLM, whose plugin library is loaded.
    """

    __version__ = "10.9.0.34"
    ILogger, IProgressMonitor, Weights, PluginField = _Logger, _ProgressMonitor, Weights, PluginField
    PluginFieldCollection = staticmethod(list)

    def __init__(self, version: str) -> None:
        for name, members in _ENUMS.items():
            setattr(self, name, IntEnum(name, members.split(), start=0))
        self.built: list[tuple[Definition, BuilderConfig]] = []
        self.refusals: list[str] = []  # of plugin creators, which say nothing to the builder's logger
        self._registry = Registry(load_tables(version), self)
        self.Builder = type("Builder", (_Builder,), {"trt": self})

    def get_plugin_registry(self) -> Registry:
        return self._registry

    def init_libnvinfer_plugins(self, *_: Any) -> bool:
        return True


def recording_tensorrt(version: str) -> TensorRT:
    """A recorder as Ditto's binding."""
    return TensorRT("tensorrt", Recorder(version), Recorder.__version__)
