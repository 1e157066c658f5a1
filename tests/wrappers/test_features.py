"""A model's own image embeddings, as a module without its language model."""

from __future__ import annotations

import torch
from torch import nn

from ditto.wrappers.features import ImageFeatures, embeddings, features_owner, without


class Owner(nn.Module):
    """As models of transformers."""

    def __init__(self, found):
        super().__init__()
        self.tower, self.language_model, self.found = nn.Linear(2, 2), nn.Linear(3, 3), found

    def get_image_features(self, pixel_values, scale=1):
        return self.found(self.tower(pixel_values) * scale)


class Output:
    """As transformers 5 has it."""

    def __init__(self, rows):
        self.pooler_output = rows


def test_the_language_model_is_left_out_and_the_rest_shared():
    owner = Owner(Output)
    module = ImageFeatures(owner, scale=3)
    assert [name for name, _ in module.named_parameters()] == ["parts.tower.weight", "parts.tower.bias"]
    assert module.parts.tower is owner.tower and hasattr(owner, "language_model")
    pixels = torch.randn(4, 5, 2)
    assert torch.equal(module(pixels), 3 * owner.tower(pixels))


def test_embeddings_are_rows_whatever_holds_them():
    rows = torch.randn(2, 3, 4)
    for found in (rows, Output(rows), [*rows], Output(tuple(rows))):
        assert torch.equal(embeddings(found), rows.flatten(0, 1))


def test_the_owner_may_be_one_level_deeper():
    owner = Owner(Output)
    outer = nn.Module()
    outer.model = owner
    assert features_owner(outer) is owner and features_owner(owner) is owner


def test_a_copy_without_parts_leaves_the_module_as_it_was():
    owner = Owner(Output)
    assert [*dict(without(owner, "tower").named_children())] == ["language_model"]
    assert [*dict(owner.named_children())] == ["tower", "language_model"]
