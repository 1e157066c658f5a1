"""`ditto verify`: a table or JSON on stdout, and the verdict as exit code."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from ditto.cli.main import main


@pytest.fixture(scope="module")
def tree(shapes_checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("verify") / "tree"
    assert main(["-q", "build", str(shapes_checkpoint), "-o", str(out), "--batch", "2"]) == 0
    return out


def test_a_sound_tree_passes(tree, images, capsys):
    assert main(["-q", "verify", str(tree), "--image", str(images[0]), "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "passed"
    assert main(["-q", "verify", str(tree), "--max-new-tokens", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True


def test_another_model_fails_and_its_layer_is_named(tree, tmp_path, shapes_checkpoint, capsys):
    other = shutil.copytree(shapes_checkpoint, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    (name,) = (name for name in tensors if name.endswith("layers.1.input_layernorm.weight"))
    tensors[name] *= 1.5
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    assert main(["-q", "verify", str(tree), "--against", str(other), "--max-new-tokens", "2"]) == 1
    shown = capsys.readouterr().out
    assert "first departing layer of llm" in shown
    assert "layers.1.input_layernorm (" in shown
    assert shown.splitlines()[-1] == "FAILED"
