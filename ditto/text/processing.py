"""Hugging Face's processor of a tree: prompts and images → token ids and inputs of the vision engine."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from ditto.engine import EngineTree, Tokens
from ditto.errors import DittoError, PromptError, TreeError
from ditto.families.preprocessor import Preprocessor, TilePreprocessor
from ditto.families.registry import find_family
from ditto.runtime.encoding import EncodedPrompt
from ditto.text.loading import automatic

_NAME_A_MODEL = "name the model's directory or hub id with --hf-model"


@frozen
class RenderedPrompt:
    """A prompt that the model's chat template has written.

    Args:
        text: image tokens included.
        add_special_tokens: whether the tokenizer adds those that begin a prompt; the template may have written them.
    """

    text: str
    add_special_tokens: bool


@frozen(eq=False)
class Processor:
    """The processor of a tree, or the tokenizer of a text model.

    Args:
        inner: Hugging Face's processor or tokenizer.
        tokens: token ids of the tree.
        directory: directory or hub id that it was loaded from.
        family: what the model's family does with its outputs; None for a text model.
    """

    inner: Any
    tokens: Tokens
    directory: str
    family: Preprocessor | None

    @staticmethod
    def of(tree: EngineTree, directory: str | Path | None = None) -> Processor:
        """The tree's own processor, or that of another directory or hub id.

        Raises:
            TreeError: it is missing, transformers cannot load it, or its tokens differ from the tree's.
        """
        own, family, tokens = tree.processor_directory, preprocessor_of(tree, directory), tree.manifest.tokens
        chosen = own if directory is None else directory
        if chosen is None:
            raise TreeError("the tree has no tokenizer files", where=str(tree.root), remedy=_NAME_A_MODEL)
        if tokens is None:
            raise TreeError("the tree has no language model", where=str(tree.root), remedy="run a whole tree")
        processor = Processor(load_processor(chosen, family), tokens, str(chosen), family)
        if directory is not None:
            processor.check_tokens(None if own is None else load_processor(own, None))
        return processor

    @property
    def tokenizer(self) -> Any:
        """Hugging Face's tokenizer."""
        return getattr(self.inner, "tokenizer", self.inner)

    @property
    def image_token(self) -> str:
        """Text of the image token in a prompt."""
        return "<image>" if self.family is None else self.family.placeholder(self.inner)

    @property
    def image_token_id(self) -> int | None:
        """Id of the image token, as the processor has it; None without images."""
        return None if self.family is None else self.family.image_token_id(self.inner)

    def check_tokens(self, own: Any) -> None:
        """Check that token ids have the same meaning for the tree and for this tokenizer.

        Args:
            own: the tree's tokenizer; None if it has none.
        Raises:
            TreeError: they do not.
        """
        vocabulary = self.tokenizer.get_vocab()
        reason = None
        if own is None:
            image = self.image_token_id
            if self.tokenizer.vocab_size > self.tokens.vocab_size:
                reason = f"it has {self.tokenizer.vocab_size} tokens, the model {self.tokens.vocab_size}"
            elif self.tokens.image is not None and image not in (None, self.tokens.image):
                reason = f"{self.image_token} is token {image}, of the model {self.tokens.image}"
        else:
            wrong = min(own.get_vocab().items() - vocabulary.items(), key=lambda entry: entry[1], default=None)
            if wrong is not None:
                reason = f"{wrong[0]!r} is token {wrong[1]} of the tree and {vocabulary.get(wrong[0], 'none')} of it"
        if reason is not None:
            raise TreeError(
                f"the tokenizer is not of the model that the tree was built from: {reason}",
                where=self.directory,
                remedy="name that model with --hf-model",
            )

    def encode(self, prompts: Any, images: Sequence[Any]) -> list[EncodedPrompt]:
        """Encode each prompt with its images.

        Args:
            prompts: a list of texts or `RenderedPrompt`s, with a placeholder at the position of each image.
            images: in the order of the placeholders; a single image is used for all prompts with one placeholder.
        Raises:
            PromptError: a prompt or an image does not fit, or the processor cannot accept it.
        """
        texts = check_prompts(prompts)
        special = [prompt.add_special_tokens if isinstance(prompt, RenderedPrompt) else True for prompt in prompts]
        if self.family is None:
            if images:
                raise PromptError("the tree has no vision engine", remedy="leave the images out")
            return [self._text(text, adds, number) for number, (text, adds) in enumerate(zip(texts, special), 1)]
        self._refuse_other_media(texts)
        assigned = assign(texts, images, self.image_token)
        return [
            self._encoded(self.family, *each, number)
            for number, each in enumerate(zip(texts, assigned, special, strict=True), 1)
        ]

    def _refuse_other_media(self, texts: Sequence[str]) -> None:
        """Refuse prompts with places for videos or audio, which processors of some models have."""
        for medium in ("video", "audio"):
            token = getattr(self.inner, f"{medium}_token", None)
            for number, text in enumerate(texts, 1):
                if token is not None and str(token) in text:
                    raise PromptError(
                        f"prompt {number} has a place for {medium}, {token}; engines take text and images",
                        remedy="leave it out, or give frames of a video as images",
                    )

    def _text(self, text: str, adds_special: bool, number: int) -> EncodedPrompt:
        options = {} if adds_special else {"add_special_tokens": False}
        with self._foreign("tokenizer", number):
            ids = tuple(int(token) for token in self.inner(text, **options)["input_ids"])
        self._check_ids(ids, number, ())
        return EncodedPrompt(ids)

    def _encoded(
        self, family: Preprocessor, text: str, images: Sequence[Any], adds_special: bool, number: int
    ) -> EncodedPrompt:
        with self._foreign("processor", number):
            encoded = family.encode(self.inner, text, images, add_special_tokens=adds_special)
            floating = [tensor for tensor in encoded.inputs.values() if tensor.is_floating_point()]
            finite = all(bool(tensor.isfinite().all()) for tensor in floating)
        if not finite:
            raise PromptError(
                f"the processor makes pixels of prompt {number} that are not finite numbers",
                where=self.directory,
                remedy="check image_mean and image_std in preprocessor_config.json",
            )
        image = family.image_token_id(self.inner) if images else None
        self._check_ids(encoded.token_ids, number, (self.tokens.image, image) if images else ())
        return encoded

    def _check_ids(self, ids: Sequence[int], number: int, places: Collection[int | None]) -> None:
        """Check that the model has an embedding for each token, except image tokens."""
        for token in ids:
            if not 0 <= token < self.tokens.vocab_size and token not in places:
                raise PromptError(
                    f"prompt {number} holds {self.tokenizer.convert_ids_to_tokens(token)!r}, token {token}; the "
                    f"model's vocabulary has {self.tokens.vocab_size} tokens",
                    remedy="leave it out, or resize the model's embedding to its tokenizer and build again",
                )

    @contextmanager
    def _foreign(self, name: str, number: int) -> Generator[None]:
        cause = f"the {name} cannot take prompt {number}"
        with foreign(PromptError, cause, self.directory, "check its files"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the results are checked below
            yield


@contextmanager
def foreign(error: type[DittoError], cause: str, where: str, remedy: str) -> Generator[None]:
    """Context that converts exceptions of libraries into `error`.

    Their message follows `cause`.
    """
    try:
        yield
    except (DittoError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as reason:  # Rust panics are not an `Exception`
        lines = str(reason).strip().splitlines()
        raise error(f"{cause}: {lines[0] if lines else type(reason).__name__}", where=where, remedy=remedy) from reason


def check_prompts(prompts: Any) -> list[str]:
    """Check the prompts of a list.

    Raises:
        PromptError: it is not a list, or one of them is not text.
    """
    if not isinstance(prompts, (list, tuple)):
        raise PromptError(
            f"the prompts are a {type(prompts).__name__}, not a list", remedy="give a list, e.g. [prompt]"
        )
    texts = [prompt.text if isinstance(prompt, RenderedPrompt) else prompt for prompt in prompts]
    for number, prompt in enumerate(texts, 1):
        if not isinstance(prompt, str):
            raise PromptError(f"prompt {number} is a {type(prompt).__name__}, not a str", remedy="give text")
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PromptError(
                f"prompt {number} is not valid Unicode at character {error.start + 1}", remedy="give it in UTF-8"
            ) from error
    return texts


def assign(prompts: Sequence[str], images: Sequence[Any], token: str) -> list[list[Any]]:
    """Images of each prompt: one per image token, in order, or one for all.

    Raises:
        PromptError: the numbers of image tokens and images do not match.
    """
    places = [prompt.count(token) for prompt in prompts]
    # A single image may be meant for all prompts; several need one image token each, and a prompt may have none.
    each_has_its_place = len(images) > 1 and sum(places) == len(images)
    for number, count in enumerate(places, 1):
        if images and not count and not each_has_its_place:
            raise PromptError(
                f"prompt {number} has no {token} token, so it has no place for an image",
                remedy=f"write {token} where the image belongs, e.g. 'USER: {token}\\nWhat is this? ASSISTANT:'",
            )
    if len(images) == 1 and all(count == 1 for count in places):
        return [[images[0]] for _ in prompts]
    if sum(places) != len(images):
        raise PromptError(
            f"places for images in the prompts: {sum(places)}; images given: {len(images)}",
            remedy=f"give one image for each {token}, in their order",
        )
    left = iter(images)
    return [[next(left) for _ in range(count)] for count in places]


def preprocessor_of(tree: EngineTree, directory: str | Path | None = None) -> Preprocessor | None:
    """What the family of a tree does with the outputs of its processor; None without a vision engine.

    Args:
        directory: directory or hub id of the model, for trees without its config.json.
    """
    if "vision" not in tree.manifest.components:
        return None
    family = find_family(tree.manifest.model_type)
    if family is None:
        return TilePreprocessor()
    return family.preprocessor.configured(tree.processor_directory or directory)


def image_tokens(
    directory: str | Path, family: Preprocessor, sizes: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], int]:
    """Image tokens of images of some sizes (height, width), as a checkpoint's processor has them.

    Raises:
        TreeError: transformers cannot load the processor, or it does not take the images.
    """
    from PIL import Image

    family = family.configured(directory)
    processor = load_processor(directory, family)
    token, text = family.image_token_id(processor), family.placeholder(processor)
    with foreign(TreeError, "the processor does not take an image", str(directory), "check its files"):
        prompts = [family.encode(processor, text, [Image.new("RGB", (width, height))]) for height, width in sizes]
    return {size: sum(each == token for each in prompt.token_ids) for size, prompt in zip(sizes, prompts, strict=True)}


def load_processor(directory: str | Path, family: Preprocessor | None) -> Any:
    """Hugging Face's processor, or the tokenizer of a text model.

    Args:
        family: None for a text model.
    Raises:
        TreeError: transformers cannot load it.
    """
    name = "tokenizer" if family is None else "processor"
    with foreign(TreeError, f"transformers cannot load the {name}", str(directory), _NAME_A_MODEL):
        processor = automatic(directory, has_images=family is not None)
        if family is not None:
            family.complete(processor, directory)
    return processor
