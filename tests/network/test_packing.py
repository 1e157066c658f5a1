"""Packed integers, unpacked one by one with shifts of Python integers."""

from __future__ import annotations

import pytest
import torch

from ditto.network.packing import packed_nibbles, unpack, unpack_halves

WORDS = torch.tensor([[0x76543210, -0x01234568], [0x7FFFFFFF, -0x80000000]], dtype=torch.int32)


def shifted(words, bits, count):
    """Unsigned integers of each word, the lowest bits first, less half of their range."""
    mask, half = 2**bits - 1, 2 ** (bits - 1)
    return [[((word >> bits * place) & mask) - half for word in row for place in range(count)] for row in words]


@pytest.mark.parametrize("bits", [4, 8])
def test_words_are_read_from_their_lowest_bits(bits):
    found = unpack(WORDS, bits, ())
    assert (found.tolist(), found.dtype) == (shifted(WORDS.tolist(), bits, 32 // bits), torch.int8)


def test_bytes_are_words_too():
    assert unpack(torch.tensor([[0x21, 0xF0]], dtype=torch.uint8), 4, ()).tolist() == [[-7, -6, -8, 7]]


def test_integers_may_be_in_another_order():
    word = torch.tensor([[0x76543210]], dtype=torch.int32)
    assert (unpack(word, 4, (0, 4, 1, 5, 2, 6, 3, 7)) + 8).tolist() == [[0, 4, 1, 5, 2, 6, 3, 7]]


def test_a_transposed_matrix_is_unpacked_along_its_last_axis():
    assert torch.equal(unpack(WORDS.T, 4, ()), unpack(WORDS.T.contiguous(), 4, ()))


def test_nibbles_are_packed_the_first_in_the_lower_half():
    values = torch.tensor([[1, 2], [-8, 7], [-1, 0]], dtype=torch.int8)
    assert packed_nibbles(values.view(torch.int4)).tolist() == [0x21, 0x78, 0x0F]


def test_halves_of_bytes_are_halves_of_the_integers():
    packed = torch.tensor([[0x0F, 0x81, 0xF8]], dtype=torch.uint8)
    assert unpack_halves(packed).tolist() == [[7, -7, 0, -8, 0, 7]]
