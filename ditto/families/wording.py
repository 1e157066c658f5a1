"""Text from tokens as they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# What a tokenizer writes for bytes that are no whole character yet.
_PARTIAL = "\ufffd"


class Wording:
    """The text of one answer, growing token by token.

    Only a few tokens are decoded again with each new one. Text that may still become a stop string is held back.
    Special tokens are not part of the text; stop strings are sought as if they were.

    Args:
        tokenizer: Hugging Face's.
        stops: strings that end the answer; neither they nor what follows are part of it.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, [stop for stop in stops if stop]
        self._ids: list[int] = []  # without special ones
        self._from, self._to = 0, 0  # the ids that give the next ones their context: a word's space, a half character
        self._whole, self._told = "", 0  # the text with its special tokens; characters of it, without them
        self._hidden: list[tuple[int, int]] = []  # where special tokens lie in it: start and end
        self._special: dict[int, str] = {}
        self.stopped = False

    @property
    def text(self) -> str:
        """All of it so far, up to the stop string."""
        ends = [self._whole.find(stop) for stop in self._stops if stop in self._whole]
        return self._shown(min(ends) if ends else len(self._whole))

    def add(self, token: int) -> str:
        """Take one more token; returns the text that is certain now and was not told before."""
        special = self._special_text(token)
        if special:
            self._hidden.append((len(self._whole), len(self._whole) + len(special)))
            self._append(special)
            return self._tell(self._certain)
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

    def _decode(self, ids: Sequence[int], without_special: bool = True) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=without_special)

    def _special_text(self, token: int) -> str:
        """What a special token looks like in a prompt; nothing for any other."""
        if token not in self._special:
            self._special[token] = "" if self._decode([token]) else self._decode([token], without_special=False).strip()
        return self._special[token]

    def _take(self, more: str) -> None:
        self._append(more)
        self._from, self._to = self._to, len(self._ids)

    def _append(self, more: str) -> None:
        self._whole += more
        self.stopped = any(stop in self._whole for stop in self._stops)

    def _shown(self, until: int) -> str:
        """The text up to a place in the whole, without special tokens."""
        shown, start = "", 0
        for hidden, end in self._hidden:
            shown += self._whole[start : min(hidden, until)]
            start = min(end, until)
        return shown + self._whole[start:until]

    @property
    def _certain(self) -> int:
        """How much of the text can no longer become part of a stop string."""
        if self.stopped:
            return len(self.text)
        held = max((_overlap(self._whole, stop) for stop in self._stops), default=0)
        return len(self._shown(len(self._whole) - held))

    def _tell(self, until: int) -> str:
        told, self._told = self.text[self._told : until], max(until, self._told)
        return told


def _overlap(text: str, stop: str) -> int:
    """How much of the end of `text` is a beginning of `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
