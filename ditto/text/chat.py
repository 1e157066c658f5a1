"""Chat templates: from messages to a prompt in the model's own form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from ditto.errors import PromptError
from ditto.text.processing import Processor, RenderedPrompt, foreign

ROLES = ("system", "user", "assistant")
_PROBE = "Is this text?"
_FORM = 'give {"role": "user", "content": "What is this?"}'
_PARTS = 'a list of {"type": "text", "text": ...} and {"type": "image", "image": ...}'


@frozen
class Message:
    """One message of a conversation.

    Args:
        role: one of `ROLES`.
        parts: texts, and None at the place of each image.
    """

    role: str
    parts: tuple[str | None, ...]
    images: tuple[Any, ...] = field(default=(), eq=False)


@frozen(eq=False)
class ChatTemplate:
    """A model's chat template.

    Args:
        text: in Jinja.
        takes_parts: whether a message's content is a list of parts, not a text.
    """

    text: str
    takes_parts: bool
    _processor: Processor

    @staticmethod
    def of(processor: Processor) -> ChatTemplate | None:
        """The template of a processor, or of its tokenizer; None if it has none."""
        stated = getattr(processor.inner, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)
        text = stated.get("default") if isinstance(stated, Mapping) else stated
        if not isinstance(text, str) or not text:
            return None
        probe = [{"role": "user", "content": [{"type": "text", "text": _PROBE}]}]
        try:
            shown = _rendered(processor, text, probe)
        except PromptError:  # templates of text fail at lists, or write them as Python does
            shown = ""
        return ChatTemplate(text, _PROBE in shown and f"'{_PROBE}'" not in shown, processor)

    def render(self, messages: Any) -> tuple[RenderedPrompt, list[Any]]:
        """The prompt of a conversation, which the next answer follows, and its images in order.

        Args:
            messages: as `read_messages` takes them; the last one is the user's.
        Raises:
            PromptError: a message is not valid, or the template cannot express it.
        """
        read = read_messages(messages)
        image_token = self._processor.image_token
        given: list[dict[str, Any]] = []
        for number, message in enumerate(read, 1):
            if any(image_token in part for part in message.parts if part):
                raise PromptError(
                    f"the text of message {number} holds the image token {image_token}",
                    remedy="leave it out: the chat template writes one for each image",
                )
            given.append({"role": message.role, "content": self._content(message, number)})
        images = [image for message in read for image in message.images]
        shown = _rendered(self._processor, self.text, given)
        self._check(shown, read, len(images))
        return RenderedPrompt(shown, self._adds_special_tokens(shown)), images

    def _content(self, message: Message, number: int) -> Any:
        if self.takes_parts:
            return [{"type": "image"} if part is None else {"type": "text", "text": part} for part in message.parts]
        if message.images:
            raise PromptError(
                f"the model's chat template has no place for the images of message {number}",
                remedy="give a prompt in the model's own form, with image tokens",
            )
        return "".join(part for part in message.parts if part is not None)

    def _check(self, shown: str, messages: Sequence[Message], images: int) -> None:
        """Check that the template has left nothing out."""
        places = shown.count(self._processor.image_token)
        if images and places != images:
            raise PromptError(
                f"the model's chat template writes {places} image tokens for {images} images",
                remedy="give a prompt in the model's own form, with image tokens",
            )
        for number, message in enumerate(messages, 1):
            lost = [part for part in message.parts if part is not None and part.strip() not in shown]
            if lost and message.role != "assistant":  # templates may drop the thoughts of earlier answers
                raise PromptError(
                    f"the model's chat template leaves out the text of message {number} ({message.role})",
                    remedy="say it in another message, or give a prompt in the model's own form",
                )

    def _adds_special_tokens(self, shown: str) -> bool:
        """As `apply_chat_template` of tokenizers (never) and of processors (not after their first special token)."""
        first = getattr(self._processor.tokenizer, "bos_token", None)
        return self._processor.family is not None and not (first and shown.startswith(first))


def read_messages(messages: Any) -> list[Message]:
    """Check a conversation.

    Args:
        messages: mappings with `role` and `content`: a text, or a list of parts `{"type": "text", "text": ...}`
            and `{"type": "image", "image": ...}`, whose image is a file, its content as bytes, a PIL image, an array or
            a data URL.
    Raises:
        PromptError: a message is not valid, or the last one is not the user's.
    """
    if not isinstance(messages, (list, tuple)) or not messages:
        raise PromptError(f"the messages are {_kind(messages)}, not a list with at least one", remedy=f"{_FORM} in it")
    read = [_read_message(message, number) for number, message in enumerate(messages, 1)]
    if read[-1].role != "user":
        raise PromptError(f"the last message is the {read[-1].role}'s", remedy="end with a message of the user")
    return read


def _read_message(message: Any, number: int) -> Message:
    if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
        raise PromptError(f"message {number} has no role and content", remedy=_FORM)
    unknown = sorted(str(name) for name in set(message) - {"role", "content"})
    if unknown:
        raise PromptError(f"message {number} has {unknown[0]!r}, which is not supported", remedy="leave it out")
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise PromptError(f"the role of message {number} is {role!r}", remedy=f"choose from {', '.join(ROLES)}")
    if isinstance(content, str):
        return Message(role, (content,))
    if not isinstance(content, (list, tuple)) or not content:
        raise PromptError(f"the content of message {number} is {_kind(content)}", remedy=f"give text, or {_PARTS}")
    parts: list[str | None] = []
    images: list[Any] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in ("text", "image") or set(part) != {"type", kind}:
            raise PromptError(f"message {number} has a part that is not supported: {kind!r}", remedy=f"give {_PARTS}")
        if kind == "image":
            images.append(part["image"])
            parts.append(None)
        elif isinstance(part["text"], str):
            parts.append(part["text"])
        else:
            raise PromptError(f"a text of message {number} is {_kind(part['text'])}", remedy="give text")
    if images and role != "user":
        raise PromptError(f"message {number} of the {role} has images", remedy="images belong to the user's messages")
    return Message(role, tuple(parts), tuple(images))


def _kind(value: Any) -> str:
    return f"an empty {type(value).__name__}" if value in ([], (), "") else f"a {type(value).__name__}"


def _rendered(processor: Processor, template: str, messages: Sequence[Mapping[str, Any]]) -> str:
    cause = "the model's chat template refuses the messages"
    remedy = "change the roles or their order, or give a prompt in the model's own form"
    with foreign(PromptError, cause, processor.directory, remedy):
        shown = processor.inner.apply_chat_template(
            list(messages), chat_template=template, tokenize=False, add_generation_prompt=True
        )
    return str(shown[0] if isinstance(shown, list) else shown)


def is_raw(processor: Processor, prompt: str) -> bool:
    """Whether a prompt is in the model's own form already: it holds the image token or another special token."""
    special = {processor.image_token, *processor.tokenizer.all_special_tokens}
    return any(token in prompt for token in special if token)


def with_template(
    processor: Processor, template: ChatTemplate | None, prompts: Sequence[str], images: Sequence[Any]
) -> tuple[list[str | RenderedPrompt], list[Any]]:
    """Prompts of which plain text is written by the chat template, and all images in order.

    Raw prompts take an image for each image token. Of the others, each gets one if there are as many left, or the only
    prompt gets all of them. A single image serves every prompt.

    Raises:
        PromptError: the images cannot be divided, or the template cannot express a prompt.
    """
    plain = [number for number, prompt in enumerate(prompts) if not is_raw(processor, prompt)]
    if template is None or not plain or (images and processor.family is None):
        return list(prompts), list(images)
    places = [prompt.count(processor.image_token) for prompt in prompts]
    shares = len(images) == 1 and all(places[number] == 1 for number in range(len(prompts)) if number not in plain)
    left = len(images) - sum(places)
    each = 1 if shares or left == len(plain) else max(left, 0) if len(plain) == 1 else 0
    if not shares and left != each * len(plain):
        raise PromptError(
            f"{len(images)} images cannot be divided among {len(prompts)} prompts",
            remedy="give one image for all of them, or one for each",
        )
    own = iter(images)
    result: list[str | RenderedPrompt] = []
    ordered: list[Any] = []
    for number, prompt in enumerate(prompts):
        count = each if number in plain else places[number]
        mine = list(images) if shares else [next(own) for _ in range(count)]
        if number not in plain:
            result.append(prompt)
            ordered += mine
            continue
        content = [*({"type": "image", "image": image} for image in mine), {"type": "text", "text": prompt}]
        rendered, mine = template.render([{"role": "user", "content": content if mine else prompt}])
        result.append(rendered)
        ordered += mine
    return result, ordered[:1] if shares else ordered
