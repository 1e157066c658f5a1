"""Hugging Face's model of a tree is the right one, or the reason why there is none is told."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from transformers import CLIPVisionConfig

from ditto.errors import CheckpointError, TreeError
from ditto.verify.model import check_model, checkpoint_of, image_features, load, rounded
from tests.support.models import VISION, llama, llava

CPU = torch.device("cpu")


def test_models_come_back_as_they_were(tmp_path):
    for name, model in {"llama": llama(), "llava": llava()}.items():
        model.save_pretrained(tmp_path / name)
        found = load(tmp_path / name, torch.float16, CPU, attention="eager")
        assert type(found) is type(model)
        assert found.dtype == torch.float16
        assert not found.training
        wanted = dict(model.named_parameters())
        for key, part in found.named_parameters():
            assert torch.equal(part, wanted[key].half())


def test_a_tree_from_memory_knows_no_checkpoint(llama_tree):
    with pytest.raises(TreeError, match="built from a model in memory"):
        checkpoint_of(llama_tree)
    assert checkpoint_of(llama_tree, "elsewhere") == "elsewhere"


def test_a_model_that_cannot_be_compared_is_named_before_it_is_loaded(llava_tree, llama_tree, tmp_path):
    """By its configuration: there are no weights here."""
    for name, model in {
        "text": llama(),
        "words": llama(vocab_size=100),
        "image": llava(CLIPVisionConfig(**{**VISION, "image_size": 14}, projection_dim=48)),
        "same": llava(),
    }.items():
        model.config.save_pretrained(tmp_path / name)
    for name, message in (
        ("text", "'llama' accepts no images that Ditto knows"),
        ("words", "its vocabulary has 100 tokens, the tree's 128"),
        ("image", r"its images are \[3, 14, 14\], the tree's \[3, 28, 28\]"),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            check_model(llava_tree, str(tmp_path / name), sees=True)
        assert "--against" in str(caught.value)
    check_model(llava_tree, str(tmp_path / "same"), sees=True)
    check_model(llava_tree, str(tmp_path / "text"), sees=False)
    check_model(llama_tree, str(tmp_path / "same"), sees=False)


def test_a_broken_checkpoint_is_named(tmp_path):
    llama().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="transformers cannot load the model"):
        load(tmp_path, torch.float32, CPU)


def test_rounding_is_that_of_loading_in_that_dtype(tmp_path):
    llava().save_pretrained(tmp_path)
    found = load(tmp_path, torch.float32, CPU)
    rounded(found, torch.float16)
    wanted = load(tmp_path, torch.float16, CPU)
    for (name, part), (_, other) in zip(found.named_parameters(), wanted.named_parameters(), strict=True):
        assert torch.equal(part, other), name
    for (name, part), (_, other) in zip(found.named_buffers(), wanted.named_buffers(), strict=True):
        assert torch.equal(part, other), name
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        rows = [image_features(each, {"pixel_values": pixels.half()}) for each in (found, wanted)]
        assert torch.equal(*rows)


EARLIER = """
parts, setting, exact = (torch.backends.cuda.matmul, torch.backends.cudnn), "allow_tf32", False
for part in parts:
    part.allow_tf32 = True
"""
NEWER = """
parts, setting, exact = (torch.backends.cuda.matmul, torch.backends.cudnn.conv), "fp32_precision", "ieee"
parts[0].fp32_precision = "tf32"
"""


@pytest.mark.parametrize("interface", [EARLIER, NEWER], ids=["earlier", "newer"])
def test_references_are_computed_without_tf32_and_the_process_keeps_its_setting(interface):
    """In a process of its own: torch forbids to use both interfaces in one."""
    if interface is NEWER and not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("since torch 2.9")
    script = f"""
import torch
from ditto.verify.model import exact_products
{interface}
before = [getattr(part, setting) for part in parts]
try:
    with exact_products():
        assert [getattr(part, setting) for part in parts] == [exact, exact]
        raise ZeroDivisionError
except ZeroDivisionError:
    assert [getattr(part, setting) for part in parts] == before != [exact, exact]
"""
    subprocess.run([sys.executable, "-c", script], check=True)
