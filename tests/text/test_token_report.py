"""Texts and bytes of tokens are those that the tokenizer makes of a text; offsets are places in it."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ditto.runtime import TokenLogprobs
from ditto.text.token_report import TokenReporter, TokenTexts

TEXT = "A small é ring, 🙂 two  spaces\nno end"


def of_bytes():
    """As GPT-2's: pieces of bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet, special_tokens=["<end>"])
    tokenizer.train_from_iterator(["A small small ring"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def of_sentences():
    """As Llama's: a mark for spaces, and bytes for what the vocabulary lacks."""
    pieces = ["<unk>", "<end>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"Asmalring,twopcend"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    for first, second in (merges := [("\u2581", "r"), ("l", "l"), ("\u2581", "t")]):
        vocabulary[first + second] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    replaced, strip = decoders.Replace("\u2581", " "), decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([replaced, decoders.ByteFallback(), decoders.Fuse(), strip])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")


def of_words():
    """As BERT's."""
    words = ["[UNK]", "small", "ring", "##s", "##é", "two"]
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def reported(tokenizer, ids):
    reporter = TokenReporter(TokenTexts(tokenizer))
    return [reporter.add(token, TokenLogprobs(-0.5, ((token, -0.5), (0, -2.0)))) for token in ids]


def decoded(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize(
    ("make", "text"),
    [(of_bytes, TEXT), (of_bytes, " A"), (of_sentences, TEXT), (of_sentences, "🙂"), (of_words, "rings two smallés")],
)
def test_bytes_make_up_the_text_and_offsets_are_places_in_it(make, text):
    tokenizer = make()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    wanted = decoded(tokenizer, ids)
    found = reported(tokenizer, ids)
    made = b"".join(each.chosen.token.data for each in found)
    lost = len(made) - len(wanted.encode())
    assert made[lost:] == wanted.encode() and made[:lost] in (b"", b" ") and wanted == text
    assert lost == (make is not of_bytes)
    for place, each in enumerate(found):  # what is whole before it
        before = decoded(tokenizer, ids[:place]).rstrip("\ufffd")
        assert each.offset == len(before)
        assert [one.token.id for one in each.top] == [ids[place], 0]


def test_parts_of_characters_are_written_as_bytes():
    tokenizer = of_bytes()
    texts = TokenTexts(tokenizer)
    ids = tokenizer("🙂")["input_ids"]
    assert [texts[token].text for token in ids] == ["\\xf0", "\\x9f", "\\x99", "\\x82"]
    assert [texts[token].data for token in ids] == [b"\xf0", b"\x9f", b"\x99", b"\x82"]


def test_special_and_unknown_tokens_take_no_place():
    tokenizer = of_bytes()
    ids = [tokenizer("A")["input_ids"][0], tokenizer.eos_token_id, 100_000, tokenizer("b")["input_ids"][0]]
    found = reported(tokenizer, ids)
    assert [each.chosen.token.text for each in found] == ["A", "<end>", "", "b"]
    assert [each.offset for each in found] == [0, 1, 1, 1]


def test_what_a_tokenizer_does_not_tell_is_none():
    class Own:
        """Without a vocabulary of pieces: a token is a byte."""

        def decode(self, ids, **_):
            return bytes(ids).decode(errors="replace")

        def convert_ids_to_tokens(self, token):
            return "?"

    texts = TokenTexts(Own())
    assert (texts[65].text, texts[65].data) == ("A", b"A")
    assert texts[0xF0].data is None
