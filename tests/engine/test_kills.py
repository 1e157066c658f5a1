"""kill -9 at every single step of staging: the tree is the old one or the new one, whole, and nothing of the user's is
lost; the next run clears what is left."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from ditto.engine import EngineTree, Manifest, TreeLimits, record_files, staged, write_manifest

# Python's own notices of what may touch the disk; between two of them nothing on it changes.
STEPS = ("open", "os.", "shutil.", "ctypes.", "fcntl.")


def build(out, content):
    with staged(out) as directory:
        (directory / "llm").mkdir()
        (directory / "llm" / "rank0.engine").write_text(content)
        (directory / "llm" / "config.json").write_text("{}")
        manifest = Manifest(
            ditto="1",
            target="trtllm",
            library=None,
            versions={},
            model=content,
            model_type="m",
            settings={},
            limits=TreeLimits(),
            decoder=None,
            checkpoint=None,
            tokens=None,
            generation={},
            components={},
            files=record_files(directory),
        )
        write_manifest(manifest, directory)


def killed_at(step, out, content):
    """Build in a child that dies at its `step`th step. Whether it died; else it took fewer steps."""
    child = os.fork()
    if child == 0:
        count = 0

        def watch(event, arguments):
            nonlocal count
            if event.startswith(STEPS):
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            build(out, content)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def content(out):
    tree = EngineTree.open(out)
    made = (out / "llm" / "rank0.engine").read_text()
    assert tree.manifest.model == made
    return made


def others(directory, out):
    return [entry.name for entry in directory.iterdir() if entry != out]


def every_kill(directory, prepare, check):
    """Kill at each step in turn, from the same beginning; returns how many there were."""
    step = 1
    while True:
        out = directory / str(step) / "tree"
        out.parent.mkdir()
        prepare(out)
        died = killed_at(step, out, "new")
        check(out)
        build(out, "next")
        assert content(out) == "next"
        assert others(out.parent, out) == []
        check(out)
        if not died:
            return step
        step += 1


def test_a_new_tree_is_there_whole_or_not_at_all(tmp_path):
    seen = set()
    steps = every_kill(tmp_path, lambda out: None, lambda out: seen.add(out.exists() and content(out)))
    assert seen == {False, "new", "next"}
    assert steps > 30


def test_an_old_tree_is_replaced_in_one_step_and_the_users_files_stay(tmp_path):
    def prepare(out):
        build(out, "old")
        (out / "notes.txt").write_text("mine")
        (out / "llm" / "notes").mkdir()
        (out / "llm" / "notes" / "more.txt").write_text("also mine")
        (out / "link").symlink_to("/")

    seen = set()

    def check(out):
        seen.add(content(out))
        aside = out.parent / ".tree.partial"
        # Until the next run the files may still lie in the old tree, aside; then they are back.
        homes = [out] if seen & {"next"} and content(out) == "next" else [out, aside]
        for name, text in (("notes.txt", "mine"), ("llm/notes/more.txt", "also mine")):
            assert [home for home in homes if (home / name).is_file() and (home / name).read_text() == text]
        assert [home for home in homes if (home / "link").is_symlink()]

    steps = every_kill(tmp_path, prepare, check)
    assert seen == {"old", "new", "next"}
    assert steps > 40


@pytest.mark.parametrize("kept", ["", "{", '{"format": 7}'])
def test_files_of_a_tree_with_a_damaged_manifest_are_kept(tmp_path, kept):
    build(tmp_path / "tree", "old")
    (tmp_path / "tree" / "ditto.json").write_text(kept)
    (tmp_path / "tree" / "notes.txt").write_text("mine")
    build(tmp_path / "tree", "new")
    assert content(tmp_path / "tree") == "new"
    assert (tmp_path / "tree" / "notes.txt").read_text() == "mine"
