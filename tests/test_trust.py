"""Nothing that comes with a checkpoint is run unless asked, nothing is written outside OUT, no tree holds pickles."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from ditto.cli.main import main
from tests.support.models import llama

CONFIGURATION = """
from pathlib import Path
from transformers import LlamaConfig

Path({marker!r}).touch()


class OddConfig(LlamaConfig):
    model_type = "odd"
"""
MODEL = """
from transformers import LlamaForCausalLM
from .configuration_odd import OddConfig


class OddForCausalLM(LlamaForCausalLM):
    config_class = OddConfig
"""


@pytest.fixture
def foreign(tmp_path):
    """A checkpoint that brings its own code, and the file that this code makes when it runs."""
    directory, marker = tmp_path / "foreign", tmp_path / "ran"
    llama().save_pretrained(directory)
    config = json.loads((directory / "config.json").read_text())
    names = {"AutoConfig": "configuration_odd.OddConfig", "AutoModelForCausalLM": "modeling_odd.OddForCausalLM"}
    config.update(model_type="odd", architectures=["OddForCausalLM"], auto_map=names)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "configuration_odd.py").write_text(CONFIGURATION.format(marker=str(marker)))
    (directory / "modeling_odd.py").write_text(MODEL)
    return directory, marker


def test_code_of_a_checkpoint_is_not_run(foreign, tmp_path, capsys):
    directory, marker = foreign
    assert main(["-q", "build", str(directory), "-o", str(tmp_path / "tree")]) == 2
    assert "needs Python code that comes with the checkpoint" in capsys.readouterr().err
    assert not marker.exists()
    assert not (tmp_path / "tree").exists()


def test_code_of_a_checkpoint_is_run_when_asked(foreign, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    directory, marker = foreign
    command = ["-q", "build", str(directory), "-o", str(tmp_path / "tree"), "--target", "tensorrt-rtx"]
    assert main([*command, "--trust-remote-code"]) == 0
    assert marker.exists()


def test_a_build_writes_nothing_outside_out_and_no_pickles(tmp_path):
    model, home = tmp_path / "model", tmp_path / "home"
    llama().save_pretrained(model)
    torch.save({"loss": 1.0}, model / "training_args.bin")
    torch.save({}, model / "pytorch_model.bin")
    home.mkdir()
    out = tmp_path / "out" / "tree"
    places = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME"), str(home))
    environment = {**os.environ, **places, "PYTHONDONTWRITEBYTECODE": "1"}
    before = {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    command = [sys.executable, "-m", "ditto", "build", str(model), "-o", str(out), "--target", "tensorrt-rtx"]
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    subprocess.run(command, env=environment, cwd=home, check=True, capture_output=True)
    assert list(home.rglob("*")) == []
    assert list(out.parent.iterdir()) == [out]
    assert {path: path.stat().st_mtime_ns for path in model.rglob("*")} == before
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".engine"}
    assert not [path for path in files if path.read_bytes()[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05")]
