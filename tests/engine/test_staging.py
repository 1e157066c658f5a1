"""A tree takes its place at once or not at all; what is the user's own stays."""

from __future__ import annotations

import os

import pytest

from ditto.engine import staged
from ditto.errors import OutputError


def build(out, content="new"):
    with staged(out) as directory:
        (directory / "llm").mkdir()
        (directory / "llm" / "rank0.engine").write_text(content)
        (directory / "ditto.json").write_text("{}")


def leftovers(directory):
    return [entry.name for entry in directory.iterdir() if entry.name.endswith(".partial")]


def test_the_tree_appears_whole(tmp_path):
    out = tmp_path / "deep" / "ünter Leuten" / "tree"
    build(out)
    assert (out / "llm" / "rank0.engine").read_text() == "new"
    assert leftovers(out.parent) == []


def test_nothing_appears_when_the_build_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), staged(tmp_path / "tree") as directory:
        (directory / "ditto.json").write_text("{}")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_build_leaves_the_old_tree(tmp_path):
    build(tmp_path / "tree", "old")
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "tree") as directory:
        (directory / "ditto.json").write_text("{}")
        raise KeyboardInterrupt
    assert (tmp_path / "tree" / "llm" / "rank0.engine").read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_new_tree_replaces_the_old_one_and_keeps_the_users_files(tmp_path):
    out = tmp_path / "tree"
    build(out, "old")
    (out / "notes.txt").write_text("mine")
    (out / "vision").mkdir()
    build(out, "new")
    assert (out / "llm" / "rank0.engine").read_text() == "new"
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "vision").exists()
    assert leftovers(tmp_path) == []


def test_an_empty_directory_may_become_a_tree(tmp_path):
    (tmp_path / "tree").mkdir()
    build(tmp_path / "tree")
    assert (tmp_path / "tree" / "ditto.json").exists()


def test_a_link_to_a_tree_stays_a_link(tmp_path):
    build(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    build(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "llm" / "rank0.engine").read_text() == "new"


def test_a_directory_of_something_else_is_refused_and_untouched(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years")
    with pytest.raises(OutputError, match="holds something that is not an engine tree"):
        build(tmp_path / "home")
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years"


def test_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("text")
    with pytest.raises(OutputError, match="the output is a file"):
        build(tmp_path / "out")


def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(OutputError, match="cannot be written") as caught:
        build(tmp_path / "file" / "tree")
    assert str(tmp_path / "file" / "tree") in str(caught.value)


def test_files_are_readable_as_the_umask_says(tmp_path):
    with staged(tmp_path / "tree") as directory:
        (directory / "ditto.json").write_text("{}")
        (directory / "ditto.json").chmod(0o600)
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "tree" / "ditto.json").stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "tree").stat().st_mode & 0o777 == 0o777 & ~mask
