"""Prompts and images as the engines receive them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from attrs import Factory, frozen
from torch import Tensor

from ditto.engine import Component
from ditto.errors import PromptError
from ditto.network import Spec
from ditto.network.dims import evaluate, symbol


@frozen(eq=False)
class EncoderItem:
    """One input of the vision engine: a tile of an image, or a whole image.

    Args:
        inputs: tensors by the engine's input names, without the batch axis where the engine has one.
    """

    inputs: Mapping[str, Tensor]


@frozen(eq=False)
class EncodedPrompt:
    """A prompt and its images, as Hugging Face's processor encodes them.

    Args:
        token_ids: image tokens included, one for each row of the image embeddings.
        inputs: the model's inputs beside the tokens, by Hugging Face's names, e.g. `pixel_values`.
        items: the same for the vision engine, in the order of the image tokens.
    """

    token_ids: tuple[int, ...]
    inputs: Mapping[str, Tensor] = Factory(dict)
    items: tuple[EncoderItem, ...] = ()


class EncoderShapes:
    """Input and output shapes of a vision engine.

    An engine whose inputs all begin with the same dynamic dimension, and have no other, is batched: one call runs
    several items. Other engines run one item per call.
    """

    def __init__(self, component: Component) -> None:
        self.inputs = {name: Spec.parse(text) for name, text in component.inputs.items()}
        self.output_name, text = next(iter(component.outputs.items()))
        self.output = Spec.parse(text)
        named = {str(dim) for spec in self.inputs.values() for dim in spec.shape if not isinstance(dim, int)}
        first = {str(spec.shape[0]) for spec in self.inputs.values()}
        self.batch = next(iter(named)) if len(named) == 1 and named == first else None

    def item_shape(self, name: str) -> tuple[object, ...]:
        """Shape of an item's tensor; dynamic dimensions are named."""
        return self.inputs[name].shape[self.batch is not None :]

    def check(self, item: EncoderItem) -> None:
        """Check an item's tensors against the engine's inputs.

        Raises:
            PromptError: one is missing, or has another shape.
        """
        for name in self.inputs:
            wanted, found = self.item_shape(name), list(item.inputs[name].shape) if name in item.inputs else None
            fixed = found is not None and len(found) == len(wanted)
            if not fixed or any(isinstance(size, int) and size != has for size, has in zip(wanted, found or ())):
                raise PromptError(
                    f"images come as {found}, the vision engine expects [{', '.join(map(str, wanted))}]",
                    remedy="use the processor of the model that the tree was built from",
                )

    def rows(self, item: EncoderItem) -> int:
        """Image tokens of an item."""
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
            return [dict(item.inputs) for item in items]
        groups = [items[start : start + at_once] for start in range(0, len(items), at_once)]
        return [{name: torch.stack([item.inputs[name] for item in group]) for name in self.inputs} for group in groups]
