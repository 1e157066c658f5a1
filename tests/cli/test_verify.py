"""`ditto verify`: a table or JSON on stdout, and the verdict as exit code."""

from __future__ import annotations

import json
import shutil

from safetensors.torch import load_file, save_file

from ditto.cli.main import main


def test_a_sound_tree_passes(shapes_tree, images, capsys):
    assert main(["-q", "verify", str(shapes_tree.root), "--image", str(images[0]), "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "passed"
    assert main(["-q", "verify", str(shapes_tree.root), "--max-new-tokens", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True


def test_another_model_fails_and_its_layer_is_named(shapes_tree, tmp_path, shapes_checkpoint, capsys):
    other = shutil.copytree(shapes_checkpoint, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    (name,) = (name for name in tensors if name.endswith("layers.1.input_layernorm.weight"))
    tensors[name] *= 1.5
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    assert main(["-q", "verify", str(shapes_tree.root), "--against", str(other), "--max-new-tokens", "2"]) == 1
    shown = capsys.readouterr().out
    assert "first diverging layer of llm" in shown
    assert "layers.1.input_layernorm (" in shown
    assert shown.splitlines()[-1] == "FAILED"
