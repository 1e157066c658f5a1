"""Pieces of text are those of decoding everything at once, whole characters only, stop strings never."""

from __future__ import annotations

import random

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.generation.stopping_criteria import StopStringCriteria

from ditto.text.detokenizer import IncrementalDetokenizer

END = 256  # <|end|>


class Bytes:
    """A tokenizer whose tokens are bytes: any character can be cut. There is one special token."""

    def decode(self, ids, skip_special_tokens, clean_up_tokenization_spaces):
        special = b"" if skip_special_tokens else b"<|end|>"
        return b"".join(special if token == END else bytes([token]) for token in ids).decode(errors="replace")


def pieces(detokenizer, ids):
    return [detokenizer.add(token) for token in ids]


@pytest.mark.parametrize("text", ["A small ring at the top.", "USER: how many? two", "  two  spaces", "no\nline"])
def test_pieces_make_up_what_the_tokenizer_decodes(text, shapes_checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(shapes_checkpoint)
    ids = tokenizer(text)["input_ids"]
    detokenizer = IncrementalDetokenizer(tokenizer)
    made = pieces(detokenizer, ids)
    assert "".join([*made, detokenizer.end()]) == tokenizer.decode(ids, skip_special_tokens=True) == detokenizer.text
    assert sum(bool(piece) for piece in made) > 1


def test_a_character_of_several_tokens_comes_whole():
    detokenizer = IncrementalDetokenizer(Bytes())
    assert pieces(detokenizer, "aé🙂b".encode()) == ["a", "", "é", "", "", "", "🙂", "b"]
    assert detokenizer.end() == ""


def test_what_stays_half_a_character_is_told_at_the_end():
    detokenizer = IncrementalDetokenizer(Bytes())
    assert pieces(detokenizer, "a🙂".encode()[:-1]) == ["a", "", "", ""]
    assert detokenizer.end() == "\ufffd" == detokenizer.text[1:]


def test_a_stop_string_is_never_told():
    detokenizer = IncrementalDetokenizer(Bytes(), ["END", "EX"])
    assert pieces(detokenizer, b"aE b") == ["a", "", "E ", "b"]
    assert pieces(detokenizer, b"EE") == ["", "E"]
    assert not detokenizer.stopped
    assert pieces(detokenizer, b"ND") == ["", ""]
    assert detokenizer.stopped
    assert detokenizer.text == "aE bE"


def test_what_could_have_become_a_stop_string_is_told_at_the_end():
    detokenizer = IncrementalDetokenizer(Bytes(), ["END"])
    assert pieces(detokenizer, b"aEN") == ["a", "", ""]
    assert detokenizer.end() == "EN"


def test_special_tokens_are_not_told():
    detokenizer = IncrementalDetokenizer(Bytes())
    assert pieces(detokenizer, [END, *b"a", END, END, *"é".encode()[:1], END, *"é".encode()[1:]]) == [
        *["", "a", "", "", "", "", "é"]
    ]
    assert detokenizer.end() == ""
    assert detokenizer.text == "aé"


@pytest.mark.parametrize("stop", ["<|end|>", "|end", "b<|end|>", "ab<|", "|>", "<|end|><|end|>"])
def test_a_special_token_that_holds_or_ends_a_stop_string_ends_the_answer(stop):
    detokenizer = IncrementalDetokenizer(Bytes(), [stop])
    given = [*b"ab", END, *([END] if stop.count("end") > 1 else [])]
    told = pieces(detokenizer, given[:-1])
    assert not detokenizer.stopped
    told.append(detokenizer.add(given[-1]))
    assert detokenizer.stopped
    assert "".join(told) == detokenizer.text == {"b<|end|>": "a", "ab<|": ""}.get(stop, "ab")


def test_text_after_a_special_token_may_end_a_stop_string():
    detokenizer = IncrementalDetokenizer(Bytes(), ["<|end|>\nUSER"])
    told = pieces(detokenizer, [*b"ab", END, *b"\nUS", *b"!", END, *b"\nUSER"])
    assert "".join(told) == detokenizer.text == "ab\nUS!"
    assert detokenizer.stopped
    assert told[:7] == ["a", "b", "", "", "", "", "\nUS!"]


@pytest.mark.parametrize(
    "stops", [["</s>"], [" a</s>"], ["</s></s>"], ["s> s", "nothing"], ["e", "</s>"], ["/s><p", "ll<image>"], [" ring"]]
)
def test_an_answer_stops_at_the_token_at_which_hugging_face_stops(stops, shapes_checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(shapes_checkpoint)
    criteria = StopStringCriteria(tokenizer, stops)
    drawn = random.Random(4)
    parts = [*tokenizer.all_special_ids, *tokenizer(" a small ring at all, no")["input_ids"]]
    stopped = 0
    for _ in range(60):
        ids = [drawn.choice(parts) for _ in range(25)]
        detokenizer, made, told = IncrementalDetokenizer(tokenizer, stops), [], []
        for token in [*tokenizer("top", add_special_tokens=False)["input_ids"], *ids]:
            made.append(token)
            told.append(detokenizer.add(token))
            assert detokenizer.stopped == bool(criteria(torch.tensor([made]), None)), made
            if detokenizer.stopped:
                stopped += 1
                break
        else:
            told.append(detokenizer.end())
        assert "".join(told) == detokenizer.text
        assert tokenizer.decode(made, skip_special_tokens=True).startswith(detokenizer.text)
        if not detokenizer.stopped:
            assert tokenizer.decode(made, skip_special_tokens=True) == detokenizer.text
    assert stopped > 3


TEXTS = ["it is called 'shapes' , isn't it ?", "caf\u00e9 \u00fcber \u65e5\u672c\u8a9e \U0001f600 ok", "##\n\nUSER: a"]


@pytest.fixture(scope="module")
def byte_pairs():
    """A tokenizer whose tokens may end within a character, and that cleans spaces up if nobody forbids it."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator(TEXTS * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=True)


@pytest.mark.parametrize(
    "stops", [["'s"], [" ?"], ["\u65e5"], ["\u65e5\u672c"], ["\u00e9 \u00fc"], ["\n\nUSER", "\U0001f600"], ["x"]]
)
def test_tokens_that_end_within_a_character_stop_where_hugging_face_does(stops, byte_pairs):
    criteria, drawn, stopped = StopStringCriteria(byte_pairs, stops), random.Random(0), 0
    for _ in range(40):
        ids = [drawn.randrange(len(byte_pairs)) for _ in range(6)]
        ids += [token for text in drawn.sample(TEXTS, 2) for token in byte_pairs(text)["input_ids"]]
        detokenizer, made, told = IncrementalDetokenizer(byte_pairs, stops), [], []
        for token in ids:
            made.append(token)
            told.append(detokenizer.add(token))
            assert detokenizer.stopped == bool(criteria(torch.tensor([made]), None)), made
            if detokenizer.stopped:
                stopped += 1
                break
        else:
            told.append(detokenizer.end())
            assert detokenizer.text == byte_pairs.decode(made, clean_up_tokenization_spaces=False)
        assert "".join(told) == detokenizer.text
    assert stopped > 3 or stops == ["x"]


def test_whole_characters_of_a_token_are_told_before_the_rest_of_it():
    class Pairs(Bytes):
        def decode(self, ids, **options):
            return super().decode([byte for pair in ids for byte in pair], **options)

    detokenizer = IncrementalDetokenizer(Pairs(), ["ab"])
    first, second = "\u00e9".encode()
    assert pieces(detokenizer, [(97, first), (second, 97)]) == ["", "a\u00e9"]
    assert detokenizer.add((98, first)) == ""
    assert detokenizer.stopped
    assert detokenizer.text == "a\u00e9"
