"""Prompts and images for a tree: random, or given by the user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

import torch
from attrs import Factory, evolve, frozen
from torch import Tensor

from ditto.engine import EngineTree
from ditto.errors import PromptError, TreeError
from ditto.families.preprocessor import Preprocessor
from ditto.runtime.encoding import EncodedPrompt, EncoderItem, EncoderShapes, TokenPositions
from ditto.runtime.session import Request, RequestLimits
from ditto.text.images import load_image
from ditto.text.processing import Processor, preprocessor_of

# Tokens before the image of a random prompt.
_BEFORE_IMAGE = 4
# Heights and widths of synthetic images, of prompt after prompt: landscape, portrait, square and small.
_SIZES = ((360, 640), (600, 400), (448, 448), (32, 20))


@frozen(eq=False)
class Prompts:
    """Prompts of equal length in Hugging Face's input format. B prompts, S tokens.

    Args:
        ids: int64 [B, S] on the CPU; an image has one image token per row of its embedding.
        inputs: the model's inputs for the images of all prompts, by Hugging Face's names; empty without images.
        items: the same for the vision engine, in the order of the image tokens.
        token_inputs: further inputs of the model with one value for each token, [B, S].
        positions: positions of the tokens of each prompt; empty if they are the tokens' indices.
        spans: ids of the tokens' spans, int32 [B, S]; None if all tokens are causal.
        next_type: value of `token_inputs` of tokens after the prompt.
    """

    ids: Tensor
    inputs: Mapping[str, Tensor] = Factory(dict)
    items: tuple[EncoderItem, ...] = ()
    token_inputs: Mapping[str, Tensor] = Factory(dict)
    positions: tuple[TokenPositions, ...] = ()
    spans: Tensor | None = None
    next_type: int = 0


def sample_items(tree: EngineTree, count: int, seed: int = 0) -> list[EncoderItem]:
    """Random inputs of the vision engine, e.g. tiles of normalised pixels."""
    family = preprocessor_of(tree)
    assert family is not None
    return family.sample(shapes_of(tree), count, torch.Generator().manual_seed(seed))


def shapes_of(tree: EngineTree) -> EncoderShapes:
    """Shapes of the vision engine."""
    return EncoderShapes(tree.component("vision"))


def prompts(tree: EngineTree, batch: int, length: int, with_images: bool = False, seed: int = 0) -> Prompts:
    """Random prompts: `batch` of `length` tokens, without special tokens.

    With random pixels near the beginning of each if `with_images`.

    Raises:
        PromptError: an image has more tokens than there is room for.
    """
    ids = _random_ids(tree, batch, length, seed)
    if not with_images:
        return Prompts(ids)
    tokens, family = tree.manifest.tokens, preprocessor_of(tree)
    assert tokens is not None and tokens.image is not None and family is not None
    rows = rows_per_image(tree)
    if length <= _BEFORE_IMAGE + rows:
        raise PromptError(
            f"a prompt of {length} tokens has no room for an image of {rows}",
            remedy=f"ask for prompts of at least {_BEFORE_IMAGE + rows + 1} tokens",
        )
    ids[:, _BEFORE_IMAGE : _BEFORE_IMAGE + rows] = tokens.image
    items = sample_items(tree, batch, seed)
    spans = None if family.spans is None else family.spans.of_prompt(ids == tokens.image)
    found = [family.positions(row, family.model_inputs([item])) for row, item in zip(ids.tolist(), items, strict=True)]
    positions = tuple(each for each in found if each is not None)
    return _with_types(
        Prompts(ids, family.model_inputs(items), tuple(items), positions=positions, spans=spans), family, tokens.image
    )


def _with_types(found: Prompts, family: Preprocessor, image: int | None) -> Prompts:
    """Prompts with the token types of the family's model."""
    rule = family.spans
    if rule is None or found.spans is None:
        return evolve(found, token_inputs=family.token_inputs(found.ids == image), next_type=family.next_type)
    return evolve(found, token_inputs={rule.input: rule.types(found.spans)}, next_type=rule.causal)


def _random_ids(tree: EngineTree, batch: int, length: int, seed: int) -> Tensor:
    tokens, family = tree.manifest.tokens, preprocessor_of(tree)
    assert tokens is not None
    special = {*tokens.end, tokens.pad, tokens.image, tokens.uncounted}
    special |= frozenset() if family is None else family.reserved()
    allowed = torch.tensor([token for token in range(3, tokens.vocab_size) if token not in special])
    drawn = torch.randint(len(allowed), (batch, length), generator=torch.Generator().manual_seed(seed))
    return allowed[drawn]


def rows_per_image(tree: EngineTree) -> int:
    """Image tokens of a sample item of the vision engine; 0 without a vision engine."""
    if "vision" not in tree.manifest.components:
        return 0
    return shapes_of(tree).rows(sample_items(tree, 1)[0])


def needs_image(tree: EngineTree) -> bool:
    """Whether Hugging Face's model takes no prompt without an image."""
    family = preprocessor_of(tree)
    return family is not None and family.needs_image


def mixed(tree: EngineTree, new_tokens: int, count: int = 4) -> list[Prompts]:
    """Prompts of different lengths that leave `new_tokens` free, one each.

    If the tree has a vision engine, each has an image, except the last of several: a synthetic image of another size
    for each prompt, encoded by the tree's own processor, or random pixels without a processor.
    """
    limits = RequestLimits.of(tree)
    room = min(limits.max_input_len, limits.max_seq_len - new_tokens)
    result: list[Prompts] = []
    seeing = count if count == 1 or needs_image(tree) else count - 1
    for number in range(count):
        found = _with_image(tree, number, room) if number < seeing else None
        result.append(found or prompts(tree, 1, max(min(8 + 5 * number, room), 1), seed=number))
    return result


def _with_image(tree: EngineTree, number: int, room: int) -> Prompts | None:
    """A prompt with an image; None if the tree has no room for any."""
    limits, rows = RequestLimits.of(tree), rows_per_image(tree)
    if not rows:
        return None
    if _has_processor(tree):
        for encoded in _synthetic(tree, number):
            length = len(encoded.token_ids)
            if length < room and _image_tokens(tree, encoded) <= limits.max_prompt_embedding_table_size:
                return _prompt_of(tree, encoded, min(8 + 5 * number, room - length), number)
        return None
    if rows > limits.max_prompt_embedding_table_size or _BEFORE_IMAGE + rows >= room:
        return None
    return prompts(tree, 1, min(rows + 8 + 5 * number, room), True, seed=number)


def _has_processor(tree: EngineTree) -> bool:
    """Whether the tree has the files of an image processor; a checkpoint may have none."""
    directory = tree.processor_directory
    names = ("preprocessor_config.json", "processor_config.json")
    return directory is not None and any((directory / name).is_file() for name in names)


def _synthetic(tree: EngineTree, number: int) -> Iterator[EncodedPrompt]:
    """A synthetic image as the whole prompt, in several sizes."""
    from PIL import Image

    processor = Processor.of(tree)
    for turn in range(len(_SIZES)):
        height, width = _SIZES[(number + turn) % len(_SIZES)]
        noise = torch.randint(256, (height // 4, width // 4, 3), generator=torch.Generator().manual_seed(number))
        image = Image.fromarray(noise.byte().numpy()).resize((width, height))
        yield processor.encode([processor.image_token], [image])[0]


def _image_tokens(tree: EngineTree, encoded: EncodedPrompt) -> int:
    tokens = tree.manifest.tokens
    return 0 if tokens is None else sum(token == tokens.image for token in encoded.token_ids)


def _prompt_of(tree: EngineTree, encoded: EncodedPrompt, more: int, seed: int) -> Prompts:
    """A prompt of an encoded one and `more` random tokens."""
    ids = torch.cat([torch.tensor([encoded.token_ids]), _random_ids(tree, 1, more, seed)], dim=1)
    family, tokens = preprocessor_of(tree), tree.manifest.tokens
    if not encoded.items or family is None or tokens is None:
        return Prompts(ids)
    positions = () if encoded.positions is None else (encoded.positions.continued(more),)
    spans = encoded.spans
    if spans is not None and family.spans is not None:
        spans = family.spans.continued(spans[None], more)
    found = Prompts(ids, encoded.inputs, encoded.items, positions=positions, spans=spans)
    return _with_types(found, family, tokens.image)


def check(tree: EngineTree, given: Sequence[Prompts], new_tokens: int) -> None:
    """Check that a tree accepts each prompt followed by `new_tokens` tokens.

    Raises:
        PromptError: the tree does not accept one.
    """
    limits, tokens = RequestLimits.of(tree), tree.manifest.tokens
    for number, prompt in enumerate(given, 1):
        rows = sum(map(shapes_of(tree).rows, prompt.items)) if prompt.items else 0
        image = None if tokens is None or not rows else tokens.image
        places = prompt.ids.eq(image) if image is not None else torch.zeros_like(prompt.ids, dtype=torch.bool)
        found = int(places.sum())
        if found != rows:
            raise PromptError(
                f"prompt {number} has {found} image tokens, its images become {rows} rows of features",
                remedy="write <image> once for each image, e.g. 'USER: <image>\\nWhat is this? ASSISTANT:'",
            )
        ids = prompt.ids.masked_fill(places, 0).tolist()  # the image token may be outside the vocabulary
        counts = places.sum(1).tolist()
        spans = prompt.spans if prompt.spans is not None else ()
        for row, count, positions, own in zip_longest(ids, counts, prompt.positions, spans):
            features = torch.empty(count, 0) if count else None
            limits.check([Request(tuple(row), features, positions=positions, spans=own)], new_tokens)


def about_images(tree: EngineTree, files: Sequence[str], asked: Sequence[str] | None = None) -> list[Prompts]:
    """Each prompt combined with each image, encoded by the tree's own processor.

    Args:
        asked: prompts with one image token each; None to ask for a description.
    Raises:
        PromptError, TreeError: a file is not an image, a prompt has no image token or several, or the tree has no
            vision engine or no processor.
    """
    if "vision" not in tree.manifest.components:
        raise PromptError("the tree has no vision engine", remedy="leave the images out")
    if tree.processor_directory is None:
        raise TreeError("the tree has no processor", where=str(tree.root), remedy="leave the images out")
    processor, images = Processor.of(tree), [load_image(file) for file in files]
    texts = [f"USER: {processor.image_token}\nDescribe this image. ASSISTANT:"] if asked is None else asked
    encoded = [processor.encode([prompt] * len(images), images) for prompt in texts]
    return [_prompt_of(tree, prompt, 0, 0) for each in encoded for prompt in each]
