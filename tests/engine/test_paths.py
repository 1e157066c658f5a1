"""Every path of a tree lies inside of it."""

from __future__ import annotations

import os

import pytest

from ditto.engine.paths import file_bytes, inside, listed
from ditto.errors import TreeError


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        (("llm", "rank0.engine"), "llm/rank0.engine"),
        ((".", "rank0.engine"), "rank0.engine"),
        (("llm-decode", "../weights.safetensors"), "weights.safetensors"),
        (("llm", "llm-decode", "../weights.safetensors"), "llm/weights.safetensors"),
        ((".",), "."),
    ],
)
def test_paths_are_listed_relative_to_the_tree(parts, wanted):
    assert listed(*parts) == wanted


@pytest.mark.parametrize(
    "parts",
    [
        ("/etc/passwd",),
        ("llm", "/etc/passwd"),
        ("..",),
        ("llm", "../.."),
        ("llm", "../../x"),
        ("",),
        ("llm", ""),
        ("a\0",),
    ],
)
def test_no_path_leads_out(parts, tmp_path):
    for check in (listed, lambda *parts: inside(tmp_path, *parts)):
        with pytest.raises(TreeError, match="not a path inside the tree"):
            check(*parts)


def test_links_may_lead_anywhere_inside(tmp_path):
    root = tmp_path / "tree"
    (root / "llm").mkdir(parents=True)
    (root / "a").write_bytes(b"abc")
    (root / "llm" / "b").symlink_to("../a")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "out").symlink_to(tmp_path)
    (tmp_path / "tree2").mkdir()
    (tmp_path / "tree2" / "a").write_bytes(b"abc")
    (root / "sibling").symlink_to("../tree2")
    (tmp_path / "link").symlink_to(root)
    for place in (root, tmp_path / "link"):
        assert inside(place, "llm", "b") == place / "llm" / "b"
        assert file_bytes(place, "llm/b") == 3
        for name in ("c", "out", "out/elsewhere", "sibling/a"):
            with pytest.raises(TreeError, match="leads out of the tree"):
                inside(place, name)


def test_a_file_must_be_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name, message in {"pipe": "not a regular", "directory": "not a regular", "none": "none is missing"}.items():
        with pytest.raises(TreeError, match=message):
            file_bytes(tmp_path, name)
    with pytest.raises(TreeError, match="cannot read n+: File name too long"):
        file_bytes(tmp_path, "n" * 300)
