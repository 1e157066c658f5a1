"""Lookup in the prompt embedding table."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("ditto::prompt_rows", mutates_args=())
def prompt_rows(ids: Tensor, table: Tensor, vocab_size: int) -> Tensor:
    """For each token id >= vocab_size, row id - vocab_size of the table; row 0 for other ids.

    Args:
        ids: integer [B, S].
        table: [rows, width], floating.
        vocab_size: number of rows of the token embedding.
    Returns:
        [B, S, width].
    """
    rows = torch.where(ids > vocab_size - 1, ids - vocab_size, 0)
    return table[rows.long()]


@prompt_rows.register_fake
def _(ids: Tensor, table: Tensor, vocab_size: int) -> Tensor:
    del vocab_size
    return table.new_empty((*ids.shape, table.shape[1]))
