"""`ditto plan` on the command line: text for a person, one object for a program."""

from __future__ import annotations

import json

from ditto.cli.main import main


def test_a_plan_names_engines_layers_and_needs(shapes_checkpoint, capsys):
    assert main(["-q", "plan", str(shapes_checkpoint), "--target", "tensorrt-rtx", "--batch", "4"]) == 0
    shown = capsys.readouterr().out
    for wanted in ("past_key_#", "x 4", "profile     decode: batch 1 to 4", "4 Attention", "GPU, KV cache"):
        assert wanted in shown
    assert "images      336x336: " in shown and "1920x1080: " in shown


def test_a_plan_in_json(shapes_checkpoint, capsys):
    assert main(["-q", "plan", str(shapes_checkpoint), "--target", "tensorrt-rtx", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data["engines"]) == {"vision", "llm"}
    assert data["engines"]["llm"]["layers"]["Attention"] == 4
    rows = data["engines"]["vision"]["outputs"]["encoder_output"].split(", ")[1]
    assert data["image_tokens"] == dict.fromkeys(("336x336", "640x480", "768x1024", "1920x1080"), int(rows))
    assert data["weights"] == sum(engine["weights"] for engine in data["engines"].values())


def test_a_model_that_cannot_be_built_is_planned_with_exit_code_1(tmp_path, capsys):
    from transformers import JetMoeConfig

    config = JetMoeConfig(
        hidden_size=64, num_hidden_layers=2, vocab_size=128, num_key_value_heads=2, kv_channels=16, intermediate_size=64
    )
    config.save_pretrained(tmp_path)
    assert main(["-q", "plan", str(tmp_path), "--target", "tensorrt-rtx"]) == 1
    shown = capsys.readouterr().out
    assert "shapes are those of config.json" in shown
    assert "cannot be built: " in shown
    assert "modeling_jetmoe.py:" in shown


def test_build_says_first_what_it_is_about_to_do(tmp_path, capsys):
    from tests.support.models import llama

    llama().save_pretrained(tmp_path / "model")
    assert main(["build", str(tmp_path / "model"), "-o", str(tmp_path / "tree"), "--target", "tensorrt-rtx"]) == 0
    lines = capsys.readouterr().err.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("plan: llama, target tensorrt-rtx"))
    assert "on the GPU" in lines[first + 2]
    assert first < next(index for index, line in enumerate(lines) if line.startswith("compile"))


def test_a_missing_directory_is_an_error(capsys):
    assert main(["plan", "./nowhere"]) == 2
    assert "no such checkpoint directory" in capsys.readouterr().err
