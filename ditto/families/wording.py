"""Text from tokens as they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# What a tokenizer writes for bytes that are no whole character yet.
_PARTIAL = "\ufffd"


class Wording:
    """The text of one answer, growing token by token.

    Only a few tokens are decoded again with each new one. Text that may still become a stop string is held back.

    Args:
        tokenizer: Hugging Face's.
        stops: strings that end the answer; neither they nor what follows are part of it.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, [stop for stop in stops if stop]
        self._ids: list[int] = []
        self._from, self._to = 0, 0  # the ids that give the next ones their context: a word's space, a half character
        self._decoded, self._told = "", 0
        self.stopped = False

    @property
    def text(self) -> str:
        """All of it so far, up to the stop string."""
        ends = [self._decoded.find(stop) for stop in self._stops if stop in self._decoded]
        return self._decoded[: min(ends)] if ends else self._decoded

    def add(self, token: int) -> str:
        """Take one more token; returns the text that is certain now and was not told before."""
        self._ids.append(token)
        context, longer = self._decode(self._ids[self._from : self._to]), self._decode(self._ids[self._from :])
        if not longer.endswith(_PARTIAL):
            self._take(longer[len(context) :])
        return self._tell(self._certain)

    def end(self) -> str:
        """No token follows: the rest of the text."""
        context, longer = self._decode(self._ids[self._from : self._to]), self._decode(self._ids[self._from :])
        self._take(longer[len(context) :])
        return self._tell(len(self.text))

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def _take(self, more: str) -> None:
        self._decoded += more
        self._from, self._to = self._to, len(self._ids)
        self.stopped = any(stop in self._decoded for stop in self._stops)

    @property
    def _certain(self) -> int:
        """How much of the text can no longer become part of a stop string."""
        text = self.text
        if self.stopped:
            return len(text)
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        return len(text) - held

    def _tell(self, until: int) -> str:
        told, self._told = self.text[self._told : until], max(until, self._told)
        return told


def _overlap(text: str, stop: str) -> int:
    """How much of the end of `text` is a beginning of `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
