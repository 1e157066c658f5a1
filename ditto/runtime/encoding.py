"""Prompts and images as the engines receive them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice

import torch
from attrs import Factory, frozen
from torch import Tensor

from ditto.engine import Component, batch_dimension
from ditto.errors import PromptError
from ditto.network import Spec
from ditto.network.dims import evaluate, symbol
from ditto.runtime.assembly import assemble


@frozen(eq=False)
class EncoderItem:
    """One input of the vision engine: a tile of an image, or a whole image.

    Args:
        inputs: tensors by the engine's input names, without the batch axis where the engine has one; the preprocessor
            may keep further ones for itself. Those of an image
            that is assembled from tiles have a first axis of tiles: a view of the whole image, the grid row by row, and
            any number of tiles that mean nothing; or the view alone.
        size: height and width of the original image, if it is assembled from tiles.
    """

    inputs: Mapping[str, Tensor]
    size: tuple[int, int] | None = None

    @cached_property
    def digest(self) -> bytes:
        """Hash of all that the embeddings depend on."""
        state = hashlib.blake2b(repr(self.size).encode(), digest_size=32)
        for name, tensor in sorted(self.inputs.items()):
            state.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
            state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return state.digest()

    def stacked(self, name: str) -> Tensor:
        """An input with a first axis of tiles."""
        return self.inputs[name] if self.size is not None else self.inputs[name][None]


@frozen(eq=False)
class TokenPositions:
    """Positions of a prompt's tokens along several axes, as in multimodal rope: time, height and width.

    Args:
        ids: int32 [axes, S].
        delta: difference between position and index of the tokens after the prompt, on each axis.
    """

    ids: Tensor
    delta: int

    def resized(self, count: int) -> Tensor:
        """Positions of the first `count` tokens, with text after the prompt: int32 [axes, count]."""
        known = self.ids.shape[1]
        text = torch.arange(known, max(count, known), dtype=torch.int32) + self.delta
        return torch.cat([self.ids, text.expand(len(self.ids), -1)], dim=1)[:, :count]

    def continued(self, count: int) -> TokenPositions:
        """Positions of the prompt and `count` text tokens after it."""
        return TokenPositions(self.resized(self.ids.shape[1] + count), self.delta)


@frozen(eq=False)
class EncodedPrompt:
    """A prompt and its images, as Hugging Face's processor encodes them.

    Args:
        token_ids: image tokens included, one for each row of the image embeddings.
        inputs: the model's inputs beside the tokens, by Hugging Face's names, e.g. `pixel_values`.
        items: the same for the vision engine, in the order of the image tokens.
        positions: positions of the tokens; None if they are the tokens' indices.
        spans: ids of the tokens' spans, int32 [S], see `ditto.ops.spans`; None if all tokens are causal.
    """

    token_ids: tuple[int, ...]
    inputs: Mapping[str, Tensor] = Factory(dict)
    items: tuple[EncoderItem, ...] = ()
    positions: TokenPositions | None = None
    spans: Tensor | None = None


class EncoderShapes:
    """Input and output shapes of a vision engine.

    A call of an engine with a batch dimension runs several items. Other engines run one item per call, whose sizes the
    engine's profiles limit.
    """

    def __init__(self, component: Component) -> None:
        self.inputs = {name: Spec.parse(text) for name, text in component.inputs.items()}
        self.output_name, text = next(iter(component.outputs.items()))
        self.output = Spec.parse(text)
        self.assembly = component.assembly
        dims = [dim for spec in self.inputs.values() for dim in spec.shape]
        self.batch = batch_dimension(str(dim) for dim in dims if dim == symbol(str(dim)))
        ranges = [size for profile in component.spec.profiles for size in profile.ranges.values()]
        self.largest = {size.name: size.max for size in sorted(ranges, key=lambda size: size.max)}

    def item_shape(self, name: str) -> tuple[object, ...]:
        """Shape of an item's tensor; dynamic dimensions are named."""
        return self.inputs[name].shape[self.batch is not None :]

    def check(self, item: EncoderItem) -> None:
        """Check an item's tensors against the engine's inputs.

        Raises:
            PromptError: one is missing, or has another shape.
        """
        for name in self.inputs:
            if not self._fits(item, name):
                found = list(item.inputs[name].shape) if name in item.inputs else None
                tiles = f" for each of {self.tiles(item)} tiles" if self.assembly is not None else ""
                raise PromptError(
                    f"images come as {found}, the vision engine expects "
                    f"[{', '.join(map(str, self.item_shape(name)))}]{tiles}",
                    remedy="use the processor of the model that the tree was built from",
                )
        for name, size in self.sizes(item.inputs).items() if self.batch is None else ():
            if size > self.largest.get(name, size):
                raise PromptError(
                    f"an image becomes {size} {name.replace('_', ' ')}, the vision engine accepts {self.largest[name]}",
                    remedy="make the image smaller, or build with a larger --max-image-size or --max-tiles",
                )

    def _fits(self, item: EncoderItem, name: str) -> bool:
        if name not in item.inputs or (item.size is None) != (self.assembly is None):
            return False
        wanted, found = self.item_shape(name), item.stacked(name).shape
        if len(found) != len(wanted) + 1 or found[0] < self.tiles(item):
            return False
        return all(size == has for size, has in zip(wanted, found[1:]) if isinstance(size, int))

    def tiles(self, item: EncoderItem) -> int:
        """Tiles of an item, without those that mean nothing."""
        if self.assembly is None or item.size is None or len(next(iter(item.inputs.values()))) == 1:
            return 1
        return self.assembly.tiles(*item.size)

    def rows(self, item: EncoderItem) -> int:
        """Image tokens of an item."""
        if self.assembly is not None and item.size is not None:
            return self.assembly.rows(*item.size) if self.tiles(item) > 1 else self.assembly.rows_of_view
        if self.batch is not None:
            return int(str(self.output.shape[1]))
        return evaluate(self.output.shape[0], self.sizes(item.inputs))

    def sizes(self, inputs: Mapping[str, Tensor]) -> dict[str, int]:
        """Sizes of the engine's dynamic dimensions in a call."""
        return {
            str(dim): size
            for name, spec in self.inputs.items()
            for dim, size in zip(spec.shape, inputs[name].shape)
            if dim == symbol(str(dim))
        }

    def batches(self, items: Sequence[EncoderItem], at_once: int) -> list[dict[str, Tensor]]:
        """Inputs of each call for `items`, at most `at_once` in one call."""
        if self.batch is None:
            return [{name: item.inputs[name] for name in self.inputs} for item in items]
        tiles = {
            name: torch.cat([item.stacked(name)[: self.tiles(item)] for item in items]).split(at_once)
            for name in self.inputs
        }
        return [dict(zip(tiles, group)) for group in zip(*tiles.values(), strict=True)]

    def assembled(self, items: Sequence[EncoderItem], tiles: Sequence[Tensor], newline: Tensor) -> list[Tensor]:
        """Image embeddings of each item, from those of all its tiles: [rows, width].

        Args:
            newline: [width], the embedding that ends a row of tiles.
        """
        assert self.assembly is not None
        left, found = iter(tiles), []
        for item in items:
            assert item.size is not None  # `check` has checked it
            own = torch.stack(list(islice(left, self.tiles(item))))
            found.append(assemble(self.assembly, own, item.size, newline))
        return found
