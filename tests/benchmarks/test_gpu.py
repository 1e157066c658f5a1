"""Benchmarks that need a GPU say so at once where there is none."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks import gpu_check, gpu_families, gpu_forms, gpu_limits, llava_7b_gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "script", [gpu_check, gpu_families, gpu_forms, gpu_limits, llava_7b_gpu], ids=lambda script: script.__name__
)
def test_without_a_gpu_nothing_begins(script, monkeypatch, capsys, tmp_path):
    directory = {gpu_limits: [str(tmp_path / "tree")], gpu_forms: []}.get(script, ["--work", str(tmp_path / "work")])
    monkeypatch.setattr(sys, "argv", [script.__name__, *directory])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
