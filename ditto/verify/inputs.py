"""Prompts and images for a tree: random, or given by the user."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from ditto.engine import EngineTree
from ditto.errors import PromptError, TreeError
from ditto.network import Spec
from ditto.runtime.session import Request, RequestLimits
from ditto.text.images import load_image
from ditto.text.processing import Processor

# Tokens before the image of a random prompt.
_BEFORE_IMAGE = 4


@frozen(eq=False)
class Prompts:
    """Prompts of equal length in Hugging Face's input format. B prompts, S tokens.

    Args:
        ids: int64 [B, S] on the CPU; an image has one image token per row of its embedding.
        pixels: float32 [images, channels, height, width], in the order of the image tokens, or None.
    """

    ids: Tensor
    pixels: Tensor | None = None


def images(tree: EngineTree, count: int, seed: int = 0) -> Tensor:
    """Random normalised pixels: float32 [count, channels, height, width]."""
    (spec,) = (Spec.parse(text) for text in tree.component("vision").inputs.values())
    shape = [int(str(size)) for size in spec.shape[1:]]
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def prompts(tree: EngineTree, batch: int, length: int, with_images: bool = False, seed: int = 0) -> Prompts:
    """Random prompts: `batch` of `length` tokens, without special tokens.

    With an image near the beginning of each if `with_images`.
    """
    tokens = tree.manifest.tokens
    assert tokens is not None
    special = {*tokens.end, tokens.pad, tokens.image}
    allowed = torch.tensor([token for token in range(3, tokens.vocab_size) if token not in special])
    drawn = torch.randint(len(allowed), (batch, length), generator=torch.Generator().manual_seed(seed))
    ids = allowed[drawn]
    if not with_images:
        return Prompts(ids)
    assert tokens.image is not None
    ids[:, _BEFORE_IMAGE : _BEFORE_IMAGE + rows_per_image(tree)] = tokens.image
    return Prompts(ids, images(tree, batch, seed))


def rows_per_image(tree: EngineTree) -> int:
    """Image tokens per image; 0 without a vision engine."""
    if "vision" not in tree.manifest.components:
        return 0
    output = next(iter(tree.component("vision").outputs.values()))
    return int(Spec.parse(output).shape[1])  # type: ignore[arg-type]


def mixed(tree: EngineTree, new_tokens: int, count: int = 4) -> list[Prompts]:
    """Random prompts of different lengths that leave `new_tokens` free, one each.

    If the tree has a vision engine, each has an image, except the last of several.
    """
    limits = RequestLimits.of(tree)
    room = min(limits.max_input_len, limits.max_seq_len - new_tokens)
    rows = rows_per_image(tree)
    has_room = 0 < rows <= limits.max_prompt_embedding_table_size and _BEFORE_IMAGE + rows < room
    result: list[Prompts] = []
    for number in range(count):
        seen = has_room and (number == 0 or number < count - 1)
        length = (rows if seen else 0) + 8 + 5 * number
        result.append(prompts(tree, 1, max(min(length, room), 1), seen, seed=number))
    return result


def check(tree: EngineTree, given: Sequence[Prompts], new_tokens: int) -> None:
    """Check that a tree accepts each prompt followed by `new_tokens` tokens.

    Raises:
        PromptError: the tree does not accept one.
    """
    limits, tokens = RequestLimits.of(tree), tree.manifest.tokens
    for number, prompt in enumerate(given, 1):
        wanted = 0 if prompt.pixels is None else rows_per_image(tree) * len(prompt.pixels) // len(prompt.ids)
        for row in prompt.ids:
            image = None if tokens is None or not wanted else tokens.image
            places = row.eq(image) if image is not None else torch.zeros_like(row, dtype=torch.bool)
            found = int(places.sum())
            if found != wanted:
                raise PromptError(
                    f"prompt {number} has {found} image tokens, its images become {wanted} rows of features",
                    remedy="write <image> once for each image, e.g. 'USER: <image>\\nWhat is this? ASSISTANT:'",
                )
            ids = row.masked_fill(places, 0).tolist()  # the image token may be outside the vocabulary
            limits.check([Request(tuple(ids), torch.empty(wanted, 0) if wanted else None)], new_tokens)


def about_images(tree: EngineTree, files: Sequence[str], asked: Sequence[str]) -> list[Prompts]:
    """Each prompt combined with each image, encoded by the tree's own processor.

    Raises:
        PromptError, TreeError: a file is not an image, a prompt has no image token or several, or the tree has no
            vision engine or no processor.
    """
    if "vision" not in tree.manifest.components:
        raise PromptError("the tree has no vision engine", remedy="leave the images out")
    if tree.processor_directory is None:
        raise TreeError("the tree has no processor", where=str(tree.root), remedy="leave the images out")
    processor, images = Processor.of(tree), [load_image(file) for file in files]
    encoded = [processor.encode([prompt] * len(images), images) for prompt in asked]
    return [Prompts(torch.tensor([ids]), pixels) for each in encoded for ids, pixels in each]
