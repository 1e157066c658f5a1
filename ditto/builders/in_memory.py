"""Model source: a module in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from typing_extensions import override

from ditto.builders.generation import module_defaults
from ditto.builders.source import Loaded, ModelSource
from ditto.checkpoint import VALUE_DTYPES
from ditto.errors import ConfigError
from ditto.network.weight import Stored, Weight, fold


class ModuleTensors:
    """Tensors of a module in memory, by their names in its state dict."""

    def __init__(self, module: nn.Module) -> None:
        self._tensors = dict(module.named_parameters(remove_duplicate=False))

    def tensor(self, name: str) -> Tensor:
        """The parameter's data on the CPU."""
        return self._tensors[name].detach().cpu()

    def release(self) -> None:
        """Do nothing: the module owns its memory."""


@frozen(slots=False, eq=False)
class InMemory(ModelSource):
    """Source of a module in memory, which stays unchanged."""

    module: nn.Module
    name: str = field(default="a module in memory")

    @property
    @override
    def config(self) -> Any:
        config = getattr(self.module, "config", None)
        if config is None:
            raise ConfigError(
                f"{type(self.module).__name__} has no `config`", remedy="pass a Hugging Face model, or its pieces"
            )
        return config

    @property
    @override
    def generation_config(self) -> Mapping[str, Any]:
        return module_defaults(self.module)

    @property
    @override
    def dtype(self) -> torch.dtype:
        for parameter in self.module.parameters():
            if parameter.is_floating_point():
                return parameter.dtype
        raise ConfigError(f"{type(self.module).__name__} has no floating parameters")

    @property
    @override
    def checkpoint(self) -> None:
        return None

    @override
    def load(self, dtype: torch.dtype) -> Loaded:
        weights: dict[int, Weight] = {}
        for name, parameter in self.module.named_parameters(remove_duplicate=False):
            if parameter.is_meta:
                raise ConfigError(
                    f"parameter `{name}` has no data (meta device)", remedy="load the model's weights first"
                )
            _check_values(name, parameter)
            stored = Stored(name, tuple(parameter.shape), parameter.dtype)
            cast = parameter.is_floating_point() and parameter.dtype != dtype
            weights.setdefault(id(parameter), fold("cast", stored, dtype) if cast else stored)
        return Loaded(self.module, dtype, weights, ModuleTensors(self.module))

    @override
    def copy_processor(self, directory: Path) -> None:
        """Do nothing: a module has no processor."""


def _check_values(name: str, parameter: nn.Parameter) -> None:
    """Check that a parameter holds the values themselves, not their inputs."""
    plain = parameter.dtype in (*VALUE_DTYPES, torch.int64, torch.bool)
    if not plain or is_traceable_wrapper_subclass(parameter.data):
        form = type(parameter.data).__name__ if plain else str(parameter.dtype).removeprefix("torch.")
        raise ConfigError(
            f"Parameter `{name}` is of {form}: the model is quantised.",
            remedy="load the model in float32, float16 or bfloat16",
        )
