"""The reference session reads networks and weights from where the tree says, or says why not."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ditto import LlmBuilder
from ditto.errors import PromptError, TreeError
from ditto.runtime import Batch, Request, generate, open_session
from tests.support.greedy import greedy
from tests.support.images import features
from tests.support.models import llama


@pytest.fixture
def built(tmp_path):
    llama().save_pretrained(tmp_path / "model")
    builder = LlmBuilder.from_pretrained(str(tmp_path / "model")).with_target("tensorrt-rtx")
    return tmp_path / "model", builder.build(tmp_path / "tree")


def answer(tree):
    return generate(open_session(tree, "reference"), [Request((5, 6, 7))], 4)


@pytest.mark.parametrize("engines", ["combined", "separate"])
def test_rows_that_wait_are_not_computed(engines, tmp_path, monkeypatch):
    """One request in the second of three rows: its tokens, and a call of one row for each."""
    import ditto.runtime.reference as room

    model = llama()
    builder = LlmBuilder.from_model(model).with_batch(3).with_target("tensorrt-rtx").with_engines(engines)
    session = open_session(builder.build(tmp_path / "tree"), "reference")
    sizes, run = [], room.run

    def noted(network, inputs, *more):
        sizes.append(len(inputs["input_ids"]))
        return run(network, inputs, *more)

    monkeypatch.setattr(room, "run", noted)
    with Batch(session, 3) as batch:
        first, second = batch.join(Request((5, 6, 7)), 1), batch.join(Request((9, 8)), 6)
        while batch.busy:
            batch.step()
    assert tuple(first.made) == greedy(model, [5, 6, 7], 1)
    assert tuple(second.made) == greedy(model, [9, 8], 6)
    assert sizes == [2] + [1] * 5


def test_weights_come_from_the_checkpoint(built):
    _, tree = built
    assert not (tree.root / "weights.safetensors").exists()
    assert answer(tree)


def test_a_moved_checkpoint_is_named(built):
    model, tree = built
    shutil.move(model, model.with_name("elsewhere"))
    with pytest.raises(TreeError, match="the checkpoint that the tree was built from cannot be read") as caught:
        answer(tree)
    assert str(model) in str(caught.value)


def test_a_changed_checkpoint_is_refused(built):
    model, tree = built
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TreeError, match="the checkpoint has changed since the tree was built from it"):
        answer(tree)


def test_images_of_another_size_are_refused(llava_tree):
    with pytest.raises(PromptError, match=r"images come as \[3, 14, 14\], the vision engine expects \[3, 28, 28\]"):
        features(open_session(llava_tree, "reference"), torch.zeros(1, 3, 14, 14))
