"""Tokens of an answer as they are reported: their texts, bytes and log-probabilities."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from attrs import frozen

from ditto.files import parse_json
from ditto.runtime import TokenLogprobs

_PARTIAL = "\ufffd"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@frozen
class TokenText:
    """A token of the vocabulary, as it reads in the middle of a text.

    Args:
        text: bytes that are no whole character are written `\\xf0`.
        data: its bytes; None if the tokenizer does not tell them.
        special: whether it is left out of texts.
    """

    id: int
    text: str
    data: bytes | None
    special: bool = False


@frozen
class LikelyToken:
    """A token and the logarithm of its probability."""

    token: TokenText
    logprob: float


@frozen
class ReportedToken:
    """A token of an answer.

    Args:
        chosen: the token.
        top: the most likely tokens in its place, the likeliest first.
        offset: number of whole characters of the answer's text before it.
    """

    chosen: LikelyToken
    top: tuple[LikelyToken, ...]
    offset: int


class TokenTexts:
    """Texts and bytes of single tokens.

    Args:
        tokenizer: Hugging Face's tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._known = tokenizer, dict[int, TokenText]()
        self._added: dict[int, Any] = dict(getattr(tokenizer, "added_tokens_decoder", None) or {})
        self._steps = _decoder_steps(getattr(tokenizer, "backend_tokenizer", None))

    def __getitem__(self, token: int) -> TokenText:
        if token not in self._known:
            self._known[token] = self._read(token)
        return self._known[token]

    def leading(self, token: int) -> int:
        """Number of spaces that the token loses at the beginning of a text."""
        return int(self[token].text.startswith(" ") and not self._decode([token]).startswith(" "))

    def _read(self, token: int) -> TokenText:
        if token in self._added:
            text = str(self._added[token])
            return TokenText(token, text, text.encode(), not self._decode([token]))
        data = self._bytes(self._tokenizer.convert_ids_to_tokens(token))
        if data is not None:
            return TokenText(token, data.decode(errors="backslashreplace"), data)
        once, twice = self._decode([token]), self._decode([token, token])
        text = twice[len(once) :] if twice.startswith(once) else once
        return TokenText(token, text, None if _PARTIAL in text else text.encode())

    def _bytes(self, piece: str | None) -> bytes | None:
        """Bytes of a piece of the vocabulary that stands for bytes."""
        if piece is None:
            return b""
        if "ByteLevel" in self._steps:
            table = _byte_alphabet()
            return bytes(table[mark] for mark in piece) if all(mark in table for mark in piece) else None
        found = _BYTE.fullmatch(piece) if "ByteFallback" in self._steps else None
        return bytes.fromhex(found[1]) if found else None

    def _decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)


class TokenReporter:
    """Reports the tokens of one answer, in their order."""

    def __init__(self, texts: TokenTexts) -> None:
        self._texts, self._offset = texts, 0
        self._decoder: Any = None

    def add(self, token: int, found: TokenLogprobs) -> ReportedToken:
        """The report of the next token."""
        chosen = self._texts[token]
        top = tuple(LikelyToken(self._texts[each], logprob) for each, logprob in found.top)
        reported = ReportedToken(LikelyToken(chosen, found.logprob), top, self._offset)
        if not chosen.special:
            if self._decoder is None:
                self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
                self._offset -= self._texts.leading(token)
            data = chosen.text.encode() if chosen.data is None else chosen.data
            self._offset += len(self._decoder.decode(data))
        return reported


def _decoder_steps(backend: Any) -> set[str]:
    """Kinds of the steps of a tokenizer's decoder."""
    decoder = getattr(backend, "decoder", None)
    if decoder is None:
        return set()
    stated = parse_json(decoder.__getstate__())
    return {step["type"] for step in stated.get("decoders", [stated])}


@lru_cache(1)
def _byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in vocabularies of bytes, as GPT-2 introduced them."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(others)}
