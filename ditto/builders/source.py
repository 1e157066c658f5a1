"""Model source: a checkpoint whose weights are not loaded."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn
from typing_extensions import override

from ditto.builders.classes import model_class
from ditto.builders.generation import checkpoint_defaults, defaults_file
from ditto.builders.gguf import described, groups_of
from ditto.builders.processor_files import copy_files, image_settings
from ditto.builders.sizes import check_sizes
from ditto.builders.stated import check_original_form, check_stated
from ditto.capture import config_in_dtype, weightless
from ditto.checkpoint import (
    CheckpointIndex,
    CheckpointReader,
    Group,
    Recipe,
    check_form,
    check_shape,
    check_stored,
    match_names,
    quantized_groups,
    raw_config,
)
from ditto.checkpoint.gguf import gguf_file
from ditto.engine import Checkpoint
from ditto.errors import CheckpointError
from ditto.network.weight import Stored, TensorSource, Weight, fold

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

# Files of a checkpoint on the hub that describing it needs.
_TEXT_FILES = ("*.json", "*.txt", "*.model", "*.jinja")


@frozen
class Loaded:
    """A model ready for capture.

    Args:
        model: the module; its parameters may be without data.
        dtype: dtype of its floating-point parameters.
        weights: source of each parameter's values, by `id` of the parameter.
        tensors: provider of the values.
    """

    model: nn.Module
    dtype: torch.dtype
    weights: Mapping[int, Weight]
    tensors: TensorSource

    def weight_of(self, wrapper: nn.Module) -> Callable[[str], Weight]:
        """Function from a parameter's name in a wrapper of the model to its weight."""
        parameters = dict(wrapper.named_parameters(remove_duplicate=False))
        return lambda name: self.weights[id(parameters[name])]


class ModelSource(ABC):
    """Base class of model sources."""

    name: str

    @property
    @abstractmethod
    def config(self) -> Any:
        """Hugging Face's configuration object."""

    @property
    @abstractmethod
    def generation_config(self) -> Mapping[str, Any]:
        """Hugging Face's generation defaults, as `generate` reads them."""

    @property
    def image_processor(self) -> Mapping[str, Any]:
        """Settings of the image processor; empty where unknown."""
        return {}

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The model's own dtype."""

    @property
    @abstractmethod
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint on disk; None for a model in memory."""

    @property
    def places(self) -> dict[str, Path]:
        """Directories that are read, by their role; nothing may be written to them."""
        return {}

    @property
    def state(self) -> str | None:
        """Fingerprint of the checkpoint's current state; None for a model in memory."""
        return None

    @abstractmethod
    def load(self, dtype: torch.dtype) -> Loaded:
        """Load the model in `dtype`.

        Raises:
            CheckpointError: the checkpoint lacks tensors that the model needs.
        """

    @abstractmethod
    def copy_processor(self, directory: Path) -> None:
        """Copy tokenizer and image processor files, if any, into a new directory."""

    def unused(self, used: frozenset[str]) -> list[str]:
        """Sorted names of the checkpoint's tensors that are not in `used`."""
        del used
        return []


@frozen(slots=False)
class Pretrained(ModelSource):
    """Source of a checkpoint directory, GGUF file or hub id.

    Headers and configuration are read on first use.

    Args:
        name: directory, GGUF file or hub id.
        revision: revision of a hub id.
        architecture: auto class of transformers for the model, e.g. `AutoModelForCausalLM`.
        trust_remote_code: run Python code that comes with the checkpoint.
    """

    name: str
    architecture: str
    revision: str | None = None
    trust_remote_code: bool = False

    @cached_property
    def directory(self) -> Path:
        """The checkpoint's directory, or its GGUF file.

        A hub id is downloaded (safetensors and text files only).

        Raises:
            CheckpointError: there is no such directory or id.
        """
        return self._gguf or self._fetched("*.safetensors", *_TEXT_FILES)

    @cached_property
    def text_directory(self) -> Path:
        """The checkpoint's directory; of a hub id, only text files are downloaded.

        Raises:
            CheckpointError: there is no such directory or id.
        """
        return self._fetched(*_TEXT_FILES) if self._gguf is None else described(self._gguf)

    @cached_property
    def _gguf(self) -> Path | None:
        return gguf_file(Path(self.name))

    def _fetched(self, *patterns: str) -> Path:
        local = Path(self.name)
        if local.exists():
            return local.resolve()
        if self.name.startswith((".", "/", "~")) or self.name.count("/") != 1:
            raise CheckpointError(
                "there is no such checkpoint directory",
                where=self.name,
                remedy="give a directory or a hub id, owner/name",
            )
        from huggingface_hub import snapshot_download

        patterns = (*patterns, "*.py") if self.trust_remote_code else patterns
        try:
            return Path(snapshot_download(self.name, revision=self.revision, allow_patterns=list(patterns)))
        except Exception as error:
            raise CheckpointError(
                f"cannot get the checkpoint from the hub: {_message(error)}",
                where=self.name,
                remedy="check the id and the connection, or give a local directory",
            ) from error

    @property
    def has_weights(self) -> bool:
        """Whether safetensors files are on this machine; downloads nothing."""
        local = Path(self.name)
        return not local.exists() or self._gguf is not None or any(local.glob("*.safetensors"))

    @cached_property
    def index(self) -> CheckpointIndex:
        """The checkpoint's headers."""
        return CheckpointIndex.open(self.directory)

    @cached_property
    def groups(self) -> dict[str, Group]:
        """The quantised weights, by the names of the float tensors that they stand for."""
        if self._gguf is not None:
            return groups_of(self._gguf, self.skeleton(torch.float32))
        return quantized_groups(self.text_directory, self.index)

    @property
    @override
    def config(self) -> Any:
        """Hugging Face's configuration object.

        Raises:
            CheckpointError: config.json is missing, damaged, or has a model type unknown to transformers.
        """
        return self._config

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        path = self.text_directory / "config.json"
        check_form(path.parent)
        check_original_form(raw_config(path.parent), str(path))
        try:
            config = AutoConfig.from_pretrained(path.parent, trust_remote_code=self.trust_remote_code)
        except Exception as error:
            if not self.trust_remote_code and "trust_remote_code" in str(error):
                raise CheckpointError(
                    "the model needs Python code that comes with the checkpoint, which is not run unless asked",
                    where=str(path),
                    remedy="read that code; if you trust it, build with --trust-remote-code",
                ) from error
            raise CheckpointError(
                f"transformers cannot read the configuration: {_message(error)}",
                where=str(path),
                remedy="check the file; a model newer than the installed transformers needs a newer one",
            ) from error
        check_sizes(config, str(path))
        return config

    @property
    @override
    def generation_config(self) -> Mapping[str, Any]:
        try:
            return checkpoint_defaults(self.text_directory, self.config)
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(
                f"transformers cannot read the generation defaults: {_message(error)}",
                where=str(defaults_file(self.text_directory)),
                remedy="check the file's values",
            ) from error

    @property
    @override
    def image_processor(self) -> Mapping[str, Any]:
        return image_settings(self.text_directory)

    @property
    def stated_dtype(self) -> torch.dtype | None:
        """The dtype that the configuration states.

        None if missing or not supported by engines.
        """
        stated = self.config.__dict__.get("dtype") or self.config.__dict__.get("torch_dtype")
        stated = stated or getattr(self.config.get_text_config(), "dtype", None)
        if isinstance(stated, str):
            stated = getattr(torch, stated, None)
        return stated if isinstance(stated, torch.dtype) and stated in DTYPES.values() else None

    @property
    @override
    def dtype(self) -> torch.dtype:
        if self.stated_dtype is not None:
            return self.stated_dtype
        counts = dict.fromkeys(DTYPES.values(), 0)
        for record in self.index.tensors.values():
            if record.dtype in counts:
                counts[record.dtype] += record.stop - record.start
        return max(counts, key=counts.__getitem__)

    @property
    @override
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(directory=str(self.directory), identity=self.index.identity)

    @property
    @override
    def places(self) -> dict[str, Path]:
        return {"the checkpoint": self.text_directory if self._gguf is None else Path(self.name).resolve()}

    @property
    @override
    def state(self) -> str:
        """Fingerprint: the checkpoint's identity and file times.

        The identity is computed from samples; file times reveal changes between them.
        """
        files = {record.file for record in self.index.tensors.values()}
        times = sorted((file.name, file.stat().st_mtime_ns) for file in files)
        return hashlib.sha256(f"{self.index.identity} {times}".encode()).hexdigest()

    @override
    def load(self, dtype: torch.dtype) -> Loaded:
        model = self.skeleton(dtype)
        reader, records = CheckpointReader(self.index), self.index.tensors
        names = match_names(model, reader, self.groups)
        for name, buffer in model.named_buffers():
            stored = names.get(name)
            if isinstance(stored, str):
                check_stored(name, stored, records[stored], buffer)
                buffer.copy_(reader.tensor(stored))
        parameters = dict(model.named_parameters(remove_duplicate=False))
        weights = {id(part): self._weight(name, names[name], part) for name, part in parameters.items()}
        return Loaded(model, dtype, weights, reader)

    def skeleton(self, dtype: torch.dtype) -> Any:
        """The model of the configuration, with parameters in `dtype` but without data.

        Shared by all builders.

        Raises:
            CheckpointError: transformers cannot create it.
        """
        if dtype not in self._skeletons:
            self._skeletons[dtype] = self._instance(dtype)
        return self._skeletons[dtype]

    @cached_property
    def _skeletons(self) -> dict[torch.dtype, Any]:
        return {}

    def _instance(self, dtype: torch.dtype) -> Any:
        check_stated(raw_config(self.text_directory), self.config, str(self.text_directory / "config.json"))
        cls = self._model_class()
        config = config_in_dtype(self.config, dtype)
        with weightless(dtype):
            try:
                model: Any = cls(config).eval()
            except Exception as error:
                raise CheckpointError(
                    f"transformers cannot make a {cls.__name__} from the configuration: {_message(error)}",
                    where=str(self.text_directory / "config.json"),
                    remedy="check the file's values",
                ) from error
        if hasattr(model, "tie_weights"):
            model.tie_weights()
        return model

    @override
    def copy_processor(self, directory: Path) -> None:
        copy_files(self.directory if self._gguf is None else self.text_directory, directory)

    @override
    def unused(self, used: frozenset[str]) -> list[str]:
        members = (group.members for group in self.groups.values() if group.members & used)
        return sorted(set(self.index.tensors).difference(used, *members))

    def _model_class(self) -> type[nn.Module]:
        where = str(self.text_directory / "config.json")
        found = model_class(self.config, self.architecture, where, runs_code=self.trust_remote_code)
        if found is not None:
            return found
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        return get_class_from_dynamic_module(self.config.auto_map[self.architecture], str(self.text_directory))

    def _weight(self, name: str, stored: str | Recipe, parameter: Tensor) -> Weight:
        if isinstance(stored, Recipe):
            weight = stored.weight(partial(self._weight, name), parameter)
            check_shape(name, stored.names[0], weight.shape, parameter, str(self.directory))
            return weight
        if stored in self.groups:
            group = self.groups[stored]
            check_shape(name, stored, group.quantized.shape, parameter, str(self.directory))
            return group.matrix(parameter.dtype)
        record = self.index.tensors[stored]
        check_stored(name, stored, record, parameter)
        weight = Stored(stored, record.shape, record.dtype)
        return weight if record.dtype == parameter.dtype else fold("cast", weight, parameter.dtype)


def _message(error: Exception) -> str:
    """Message of a library's exception on one line.

    Its first line, and the next if the first is a heading.
    """
    lines = str(error).strip().splitlines() or [repr(error)]
    if isinstance(error, KeyError):
        return f"there is no {lines[0]}"
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])
