"""Calls of a vision engine follow from its shapes."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from ditto.errors import PromptError
from ditto.runtime.encoding import EncoderItem, EncoderShapes


@pytest.fixture(scope="module")
def component(llava_tree):
    return llava_tree.component("vision")


def shapes(component, inputs, output):
    return EncoderShapes(evolve(component, inputs=inputs, outputs={"encoder_output": output}))


def test_tiles_are_batched(component):
    found = shapes(component, {"input": "float32[batch, 3, 4, 4]"}, "float32[batch, 5, 8]")
    items = [EncoderItem({"input": torch.full((3, 4, 4), float(number))}) for number in range(5)]
    calls = found.batches(items, 2)
    assert [len(call["input"]) for call in calls] == [2, 2, 1]
    assert torch.cat([call["input"] for call in calls])[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert found.rows(items[0]) == 5 and found.sizes(calls[0]) == {"batch": 2}


def test_images_of_any_size_are_not(component):
    inputs = {"pixels": "float32[patches, 12]", "segments": "int64[images]"}
    found = shapes(component, inputs, "float32[patches, 8]")
    item = EncoderItem({"pixels": torch.randn(6, 12), "segments": torch.zeros(2, dtype=torch.int64)})
    found.check(item)
    assert found.batch is None
    assert found.batches([item, item], 4) == [item.inputs, item.inputs]
    assert found.rows(item) == 6 and found.sizes(item.inputs) == {"patches": 6, "images": 2}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"input": torch.zeros(3, 4, 5)}, r"images come as \[3, 4, 5\], the vision engine expects \[3, 4, 4\]"),
        ({"input": torch.zeros(1, 3, 4, 4)}, r"images come as \[1, 3, 4, 4\]"),
        ({"other": torch.zeros(3, 4, 4)}, "images come as None"),
    ],
)
def test_other_shapes_are_refused(component, item, message):
    found = shapes(component, {"input": "float32[batch, 3, 4, 4]"}, "float32[batch, 5, 8]")
    with pytest.raises(PromptError, match=message):
        found.check(EncoderItem(item))
