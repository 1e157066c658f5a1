"""Random prompts and pictures of a tree's sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from ditto.bench.plan import rows_per_picture
from ditto.engine import EngineTree
from ditto.network import Spec
from ditto.verify.model import Prompts


def pictures(tree: EngineTree, count: int, seed: int = 0) -> Tensor:
    """Normalised pixels: float32 [count, channels, height, width]."""
    (spec,) = (Spec.parse(text) for text in tree.component("vision").inputs.values())
    shape = [int(str(size)) for size in spec.shape[1:]]
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def prompts(tree: EngineTree, batch: int, length: int, with_pictures: bool = False, seed: int = 0) -> Prompts:
    """`batch` prompts of `length` tokens, none of them special; a picture stands near the beginning of each."""
    tokens = tree.manifest.tokens
    assert tokens is not None
    special = {*tokens.end, tokens.pad, tokens.image}
    allowed = torch.tensor([token for token in range(3, tokens.vocab_size) if token not in special])
    drawn = torch.randint(len(allowed), (batch, length), generator=torch.Generator().manual_seed(seed))
    ids = allowed[drawn]
    if not with_pictures:
        return Prompts(ids)
    assert tokens.image is not None
    ids[:, 4 : 4 + rows_per_picture(tree)] = tokens.image
    return Prompts(ids, pictures(tree, batch, seed))
