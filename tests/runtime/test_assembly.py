"""Assembled embeddings are those of Hugging Face's `pack_image_features`, for images of any size."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from attrs import evolve
from transformers import CLIPVisionConfig, LlavaNextConfig, LlavaOnevisionConfig
from transformers.models.llava_next import modeling_llava_next
from transformers.models.llava_onevision import modeling_llava_onevision

from ditto.engine import Assembly
from ditto.reference import RELATIVE_ERROR, relative_error
from ditto.runtime.assembly import assemble

SIDE, WIDTH, TILE = 6, 8, 84
PINPOINTS = [[84, 168], [168, 84], [168, 168], [252, 84], [84, 252], [252, 336]]
ASSEMBLY = Assembly(tile=TILE, side=SIDE, sizes=PINPOINTS)
# Height and width: landscape, portrait, square, tiny, huge, and strips that vanish in their padding.
SIZES = [(60, 100), (97, 56), (84, 84), (3, 5), (1, 1), (3000, 4001), (5000, 4999), (2, 900), (1, 3000), (3000, 1)]
NEWLINE = torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))


def tiles_of(size):
    count = modeling_llava_next.image_size_to_num_patches(list(size), PINPOINTS, TILE)
    return torch.randn(count, SIDE**2, WIDTH, generator=torch.Generator().manual_seed(2))


def hugging_face(tiles, size):
    vision = CLIPVisionConfig(image_size=TILE, patch_size=TILE // SIDE)
    config = LlavaNextConfig(vision_config=vision, image_grid_pinpoints=PINPOINTS)
    owner = getattr(modeling_llava_next, "LlavaNextModel", modeling_llava_next.LlavaNextForConditionalGeneration)
    found, _ = owner.pack_image_features(
        SimpleNamespace(config=config), [tiles], torch.tensor([size]), "default", NEWLINE
    )
    return found if isinstance(found, torch.Tensor) else found[0]  # a list since transformers 5


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_embeddings_are_hugging_faces(size):
    tiles = tiles_of(size)
    wanted = hugging_face(tiles, size)
    assert len(tiles) == ASSEMBLY.tiles(*size)
    assert torch.equal(assemble(ASSEMBLY, tiles, size, NEWLINE), wanted)
    assert ASSEMBLY.rows(*size) == len(wanted)


def hugging_face_shrunk(tiles, size, most):
    vision = CLIPVisionConfig(image_size=TILE, patch_size=TILE // SIDE)
    config = LlavaOnevisionConfig(vision_config=vision, image_grid_pinpoints=PINPOINTS)
    module = modeling_llava_onevision
    owner = getattr(module, "LlavaOnevisionModel", module.LlavaOnevisionForConditionalGeneration)
    given = [tiles], torch.tensor([size]), NEWLINE, f"anyres_max_{most}"
    found, _ = owner.pack_image_features(SimpleNamespace(config=config), *given)
    return found if isinstance(found, torch.Tensor) else found[0]


@pytest.mark.parametrize("most", [1, 3, 9])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_many_embeddings_are_shrunk_as_hugging_face_does(size, most):
    tiles, shrinking = tiles_of(size), evolve(ASSEMBLY, shrink_above=most)
    found, wanted = assemble(shrinking, tiles, size, NEWLINE), hugging_face_shrunk(tiles, size, most)
    assert found.shape == wanted.shape and relative_error(found, wanted) < RELATIVE_ERROR[torch.float32]
    assert shrinking.rows(*size) == len(wanted) <= shrinking.most_rows(13)
    if most == 1 and max(size) > 1000 < 2 * min(size):
        assert relative_error(found[: SIDE**2], wanted[: SIDE**2]) == 0 and len(found) < ASSEMBLY.rows(*size)


def test_a_view_that_is_alone_ends_with_a_newline():
    tiles = torch.randn(1, SIDE**2, WIDTH)
    assert torch.equal(assemble(ASSEMBLY, tiles, (60, 100), NEWLINE), hugging_face(tiles, (60, 100)))
    assert ASSEMBLY.rows_of_view == SIDE**2 + 1


def transposed(self, height, width):
    return tuple(reversed(GRID(self, height, width)))


def without_newlines(parts, dim=0):
    return parts[0] if dim else CAT(parts)


GRID, CAT = Assembly.grid, torch.cat
FAULTS = {
    "a transposed grid": patch.object(Assembly, "grid", transposed),
    "no unpadding": patch.object(Assembly, "padding", lambda self, height, width: (0, 0)),
    "a dropped newline": patch(
        "ditto.runtime.assembly.torch.cat", lambda parts, dim=0: parts[0] if dim else CAT(parts)
    ),
}
CAT = torch.cat


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_noticed(fault):
    size = (50, 151)
    tiles = tiles_of(size)
    wanted = hugging_face(tiles, size)
    with FAULTS[fault]:
        found = assemble(ASSEMBLY, tiles, size, NEWLINE)
    assert found.shape != wanted.shape or relative_error(found, wanted) > 100 * RELATIVE_ERROR[torch.float32]


def test_no_image_has_more_embeddings_than_the_limit():
    counts = {ASSEMBLY.rows(height, width) for height in range(1, 400, 7) for width in range(1, 400, 7)}
    assert max(counts) == ASSEMBLY.most_rows(13) == SIDE**2 + 3 * SIDE * (4 * SIDE + 1)
    assert ASSEMBLY.most_rows(5) == SIDE**2 + 2 * SIDE * (2 * SIDE + 1)
