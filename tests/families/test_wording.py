"""Pieces of text are those of decoding everything at once, whole characters only, stop strings never."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from ditto.families.wording import Wording


class Bytes:
    """A tokenizer whose tokens are bytes: any character can be cut."""

    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return bytes(ids).decode("utf-8", errors="replace")


def pieces(wording, ids):
    return [wording.add(token) for token in ids]


@pytest.mark.parametrize("text", ["A small ring at the top.", "USER: how many? two", "  two  spaces", "no\nline"])
def test_pieces_make_up_what_the_tokenizer_decodes(text, shapes_checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(shapes_checkpoint)
    ids = tokenizer(text)["input_ids"]
    wording = Wording(tokenizer)
    made = pieces(wording, ids)
    assert "".join([*made, wording.end()]) == tokenizer.decode(ids, skip_special_tokens=True) == wording.text
    assert sum(bool(piece) for piece in made) > 1


def test_a_character_of_several_tokens_comes_whole():
    wording = Wording(Bytes())
    assert pieces(wording, "aé🙂b".encode()) == ["a", "", "é", "", "", "", "🙂", "b"]
    assert wording.end() == ""


def test_what_stays_half_a_character_is_told_at_the_end():
    wording = Wording(Bytes())
    assert pieces(wording, "a🙂".encode()[:-1]) == ["a", "", "", ""]
    assert wording.end() == "\ufffd" == wording.text[1:]


def test_a_stop_string_is_never_told():
    wording = Wording(Bytes(), ["END", "EX"])
    assert pieces(wording, b"aE b") == ["a", "", "E ", "b"]
    assert pieces(wording, b"EE") == ["", "E"]
    assert not wording.stopped
    assert pieces(wording, b"ND") == ["", ""]
    assert wording.stopped
    assert wording.text == "aE bE"


def test_what_could_have_become_a_stop_string_is_told_at_the_end():
    wording = Wording(Bytes(), ["END"])
    assert pieces(wording, b"aEN") == ["a", "", ""]
    assert wording.end() == "EN"
