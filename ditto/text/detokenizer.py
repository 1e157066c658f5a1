"""Incremental detokenization: text from tokens as they are generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Replacement character, which a tokenizer writes for an incomplete UTF-8 sequence.
_PARTIAL = "\ufffd"


class IncrementalDetokenizer:
    """Incremental detokenizer of one answer.

    Each new token causes only a few tokens to be decoded again. Text that may still become a stop string is held back.
    Special tokens are not part of the text, but the search for stop strings includes them.

    Args:
        tokenizer: Hugging Face's tokenizer.
        stops: strings that end the answer; neither they nor what follows are part of it.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, [stop for stop in stops if stop]
        self._ids: list[int] = []  # without special tokens
        self._from, self._to = 0, 0  # range of ids decoded as context of the next: leading spaces, partial characters
        self._taken = 0  # number of characters of the text from `_from` on that are in `_full_text`
        self._full_text = ""  # text with special tokens
        self._returned = 0  # number of characters returned so far, without special tokens
        self._hidden: list[tuple[int, int]] = []  # start and end of the special tokens in `_full_text`
        self._special: dict[int, str] = {}
        self.stopped = False

    @property
    def text(self) -> str:
        """The whole text so far, up to the stop string."""
        ends = [self._full_text.find(stop) for stop in self._stops if stop in self._full_text]
        return self._shown(min(ends) if ends else len(self._full_text))

    def add(self, token: int) -> str:
        """Append one token; returns the newly completed text."""
        special = self._special_text(token)
        if special:
            self._hidden.append((len(self._full_text), len(self._full_text) + len(special)))
            self._append(special)
            return self._advance(self._certain)
        self._ids.append(token)
        longer = self._decode(self._ids[self._from :])
        self._take(longer.rstrip(_PARTIAL))  # a token may hold whole characters before a partial one
        if not longer.endswith(_PARTIAL):
            self._from, self._to = self._to, len(self._ids)
            self._taken = len(self._decode(self._ids[self._from :]))
        return self._advance(self._certain)

    def end(self) -> str:
        """Finish the answer; returns the rest of the text."""
        self._take(self._decode(self._ids[self._from :]))
        return self._advance(len(self.text))

    def _decode(self, ids: Sequence[int], without_special: bool = True) -> str:
        # Clean-up removes spaces before punctuation in earlier text, also where the model wrote them.
        return self._tokenizer.decode(
            list(ids), skip_special_tokens=without_special, clean_up_tokenization_spaces=False
        )

    def _special_text(self, token: int) -> str:
        """Text of a special token in a prompt; empty for other tokens."""
        if token not in self._special:
            self._special[token] = "" if self._decode([token]) else self._decode([token], without_special=False).strip()
        return self._special[token]

    def _take(self, text: str) -> None:
        """Append the new characters of the text from `_from` on."""
        self._append(text[self._taken :])
        self._taken = max(self._taken, len(text))

    def _append(self, more: str) -> None:
        self._full_text += more
        self.stopped = any(stop in self._full_text for stop in self._stops)

    def _shown(self, until: int) -> str:
        """Text up to a position in `_full_text`, without special tokens."""
        shown, start = "", 0
        for hidden, end in self._hidden:
            shown += self._full_text[start : min(hidden, until)]
            start = min(end, until)
        return shown + self._full_text[start:until]

    @property
    def _certain(self) -> int:
        """Length of the text that can no longer become part of a stop string."""
        if self.stopped:
            return len(self.text)
        held = max((_overlap(self._full_text, stop) for stop in self._stops), default=0)
        return len(self._shown(len(self._full_text) - held))

    def _advance(self, until: int) -> str:
        text, self._returned = self.text[self._returned : until], max(until, self._returned)
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a prefix of `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
