"""Only regular files are opened, and JSON is read as the standard has it."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

import ditto
from ditto.files import check_regular, open_regular, parse_json, read_json, read_whole


def test_a_file_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b'{"a": [1, 2.5, "\xc3\xbc", null, true]}')
    assert check_regular(tmp_path / "a") == 33
    with open_regular(tmp_path / "a") as file:
        assert file.read(1) == b"{"
    assert read_json(tmp_path / "a") == {"a": [1, 2.5, "ü", None, True]}


@pytest.mark.parametrize("kind", ["pipe", "directory", "device", "loop", "nothing", "nul\0", "n" * 300])
def test_what_is_not_a_file_is_refused_at_once(kind, tmp_path):
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind in ("device", "loop"):
        path.symlink_to("/dev/zero" if kind == "device" else kind)
    for read in (check_regular, open_regular, read_whole):
        with pytest.raises(OSError, match=".") as caught:
            read(path)
        assert caught.value.strerror


def test_a_pipe_that_comes_meanwhile_keeps_nobody_waiting(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("ditto.files.check_regular", lambda path: 0)
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "pipe")


def test_a_sparse_file_is_not_read_into_memory(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(OSError, match="larger than"):
        read_json(tmp_path / "a")


def test_what_transformers_takes_is_taken_if_asked():
    assert parse_json(b'{"a": Infinity, "b": 1, "b": 2}', lenient=True) == {"a": float("inf"), "b": 2}
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(b"[" * 100_000, lenient=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"\xff", "utf-8"),
        (b'{"a": 1, "a": 2}', "the key 'a' is there twice"),
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e999", "1e999 is too large a number"),
        (b"1" * 5000, "limit"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'"\\ud800"', "surrogates not allowed"),
    ],
)
def test_what_is_not_json_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        parse_json(content)


def test_nothing_else_of_ditto_reads_json():
    """One door: elsewhere, a file would come in whose faults nobody names."""
    for path in Path(ditto.__file__).parent.rglob("*.py"):
        if path.relative_to(Path(ditto.__file__).parent) in (
            Path("files.py"),
            Path("builders/generation.py"),
        ):  # the latter: an object of transformers' as text
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("load", "loads") and isinstance(node.value, ast.Name):
                assert node.value.id != "json", f"{path}:{node.lineno}"
