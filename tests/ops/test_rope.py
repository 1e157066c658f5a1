"""The rope operator turns pairs of columns by the angle of each position."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ditto import ops
from ditto.reference import TOLERANCE

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
BATCH, HEADS, LENGTH, WIDTH, POSITIONS = 2, 3, 5, 8, 11
IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 10, 0]])


def _operands(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, HEADS, LENGTH, WIDTH, generator=generator).to(dtype)
    angles = torch.arange(POSITIONS)[:, None] * torch.logspace(0, -2, WIDTH // 2)
    return x, angles.cos().to(dtype), angles.sin().to(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("integer", [torch.int32, torch.int64])
def test_pairs_of_halves_are_hugging_faces(dtype, integer):
    x, cos, sin = _operands(dtype)
    rows = (torch.cat((table, table), -1)[IDS] for table in (cos, sin))
    wanted, _ = apply_rotary_pos_emb(x, x, *rows)
    assert_close(ops.rope(x, cos, sin, IDS.to(integer), False), wanted, **TOLERANCE[dtype])


@pytest.mark.parametrize("interleaved", [False, True])
def test_each_pair_is_a_complex_number_turned(interleaved):
    x, cos, sin = _operands()
    left, right = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., : WIDTH // 2], x[..., WIDTH // 2 :])
    turned = torch.complex(left, right) * torch.complex(cos, sin)[IDS].unsqueeze(1)
    found = ops.rope(x, cos, sin, IDS, interleaved)
    parts = (found[..., 0::2], found[..., 1::2]) if interleaved else found.split(WIDTH // 2, dim=-1)
    assert_close(torch.complex(*parts), turned)


def test_one_row_of_positions_serves_every_batch_row():
    x, cos, sin = _operands()
    both = ops.rope(x, cos, sin, IDS[:1], False)
    assert torch.equal(both, ops.rope(x, cos, sin, IDS[:1].expand(2, -1), False))


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("contiguous", [True, False])
def test_the_fake_has_the_shape_dtype_and_layout_of_the_real_one(interleaved, contiguous):
    x, cos, sin = _operands(torch.float16)
    x = x if contiguous else x.transpose(1, 2).contiguous().transpose(1, 2)
    torch.library.opcheck(torch.ops.ditto.rope.default, (x, cos, sin, IDS[:1], interleaved))
