"""The Hugging Face model that a tree was built from, run by transformers."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ditto.builders import Pretrained
from ditto.checkpoint import CheckpointReader
from ditto.engine import EngineTree
from ditto.errors import CheckpointError, TreeError
from ditto.families.multimodal import MultimodalModel
from ditto.families.registry import find_family
from ditto.network import Literals, resolve
from ditto.network.quantized import QuantizedWeight
from ditto.runtime.encoding import EncoderShapes


def checkpoint_of(tree: EngineTree, against: str | None = None) -> str:
    """Checkpoint to compare a tree with: `against`, or the tree's own.

    Raises:
        TreeError: the tree was built from a model in memory.
    """
    if against is not None:
        return against
    if tree.manifest.checkpoint is None:
        raise TreeError(
            "the tree was built from a model in memory and knows no checkpoint",
            where=str(tree.root),
            remedy="name the model's directory or hub id with --against",
        )
    return tree.manifest.checkpoint.directory


def check_model(tree: EngineTree, model: str, sees: bool) -> None:
    """Check by configuration that a checkpoint accepts a tree's prompts.

    Args:
        sees: whether the prompts include images.
    Raises:
        CheckpointError: it is a text model but there are images, or its vocabulary or image format differs.
    """
    config = Pretrained(model, "AutoModelForCausalLM").config
    tokens, vocab_size = tree.manifest.tokens, config.get_text_config().vocab_size
    reason = None
    if tokens is not None and vocab_size != tokens.vocab_size:
        reason = f"its vocabulary has {vocab_size} tokens, the tree's {tokens.vocab_size}"
    elif sees:
        family = find_family(config.model_type)
        shapes = EncoderShapes(tree.component("vision"))
        if family is None:
            reason = f"{config.model_type!r} accepts no images that Ditto knows, and the tree does"
        elif (own := _fixed(family, config)) != (wanted := _fixed_of(shapes)):
            reason = f"its images are {_text(own)}, the tree's {_text(wanted)}"
    if reason is not None:
        raise CheckpointError(
            f"the model cannot be compared with the tree: {reason}",
            where=model,
            remedy="name the model that the tree was built from, or one of the same shapes, with --against",
        )


def load(
    model: str | Path,
    dtype: torch.dtype,
    device: torch.device,
    attention: str | None = None,
    quantized: Mapping[str, QuantizedWeight] | None = None,
) -> Any:
    """A checkpoint as a Hugging Face model, ready to run; quantised weights are dequantised.

    A GGUF file is dequantised by transformers, unless tensors are replaced.

    Args:
        model: a directory, GGUF file or hub id.
        attention: attention implementation of transformers; None for the default.
        quantized: weights that replace tensors of the checkpoint, by the names of the tensors.
    Raises:
        CheckpointError: transformers cannot load it.
    """
    import transformers

    source = Pretrained(str(model), "AutoModelForCausalLM")
    name = "AutoModelForImageTextToText" if hasattr(source.config, "vision_config") else source.architecture
    chosen: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    chosen["dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"] = dtype
    try:
        if source.directory.is_file() and not quantized:
            file = source.directory
            loaded = getattr(transformers, name).from_pretrained(file.parent, gguf_file=file.name, **chosen)
        elif source.groups or quantized:
            cls = type(Pretrained(str(model), name).skeleton(dtype))  # an auto class accepts no values
            loaded = cls.from_pretrained(None, **_dequantized(source, quantized or {}), **chosen)
        else:
            loaded = getattr(transformers, name).from_pretrained(source.directory, **chosen)
    except Exception as error:
        raise CheckpointError(
            f"transformers cannot load the model: {str(error).splitlines()[0] if str(error) else error!r}",
            where=str(model),
            remedy="check that the checkpoint is whole",
        ) from error
    return loaded.eval().requires_grad_(False).to(device)


def _dequantized(source: Pretrained, quantized: Mapping[str, QuantizedWeight]) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a model with dequantised weights: a checkpoint's, or others of its tensors."""
    config, reader = copy.deepcopy(source.config), CheckpointReader(source.index)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    members = {name for group in source.groups.values() for name in group.members}
    values = {name: reader.tensor(name) for name in source.index.tensors if name not in members}
    matrices = {name: group.matrix(torch.float32) for name, group in source.groups.items()}
    values.update({name: resolve(weight, reader, Literals()) for name, weight in {**matrices, **quantized}.items()})
    return {"config": config, "state_dict": values}


def _fixed(family: type[MultimodalModel], config: Any) -> list[list[int]]:
    """Static sizes of each input of a model's encoder."""
    hints = family.encoder(config).inputs.values()
    return [[size for size in hint.shape if isinstance(size, int)] for hint in hints]


def _fixed_of(shapes: EncoderShapes) -> list[list[int]]:
    return [[size for size in spec.shape if isinstance(size, int)] for spec in shapes.inputs.values()]


def _text(shapes: Iterable[Iterable[int]]) -> str:
    return " and ".join(str(list(shape)) for shape in shapes)


def image_features(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Hugging Face's own image embeddings: [rows, width].

    Args:
        inputs: the model's inputs except for the tokens.
    """
    family = find_family(model.config.model_type)
    assert family is not None  # `check_model` has checked it
    return family.features(model, inputs)


@contextmanager
def exact_products() -> Generator[None]:
    """Context in which PyTorch's products and convolutions keep float32 operands as they are, also on a GPU."""
    matmul, cudnn = (cast("Any", part) for part in (torch.backends.cuda.matmul, torch.backends.cudnn))
    parts, setting, exact = (matmul, cudnn), "allow_tf32", False
    try:
        before = [getattr(part, setting) for part in parts]
    except RuntimeError:  # the process uses the interface of torch 2.9, which then forbids the earlier one
        parts, setting, exact = (matmul, cudnn.conv), "fp32_precision", "ieee"
        before = [getattr(part, setting) for part in parts]
    try:
        for part in parts:
            setattr(part, setting, exact)
        yield
    finally:
        for part, own in zip(parts, before, strict=True):
            setattr(part, setting, own)


def rounded(model: Any, dtype: torch.dtype) -> None:
    """Convert what a checkpoint holds of a model to `dtype`, as loading in that dtype does.

    Buffers that the model computes itself keep their dtype.
    """
    for part in model.modules():
        stored = [name for name in part._buffers if name not in part._non_persistent_buffers_set]
        buffers = [part._buffers[name] for name in stored if part._buffers[name] is not None]
        for tensor in (*part.parameters(recurse=False), *buffers):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)
