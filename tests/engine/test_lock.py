"""One builder at a time; a process that died holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ditto.engine.lock import locked
from ditto.errors import OutputError

HOLD = """
import sys, time
from pathlib import Path
from ditto.engine.lock import locked
with locked(Path(sys.argv[1]), Path("tree")):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_held_lock_is_refused_and_names_its_holder(holder, tmp_path):
    with (
        pytest.raises(OutputError, match=f"being built right now by process {holder.pid}") as caught,
        locked(tmp_path / "lock", tmp_path / "tree"),
    ):
        pass
    assert str(tmp_path / "tree") in str(caught.value)


def test_the_lock_of_a_killed_process_is_free(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "lock").exists()
    with locked(tmp_path / "lock", tmp_path / "tree"):
        assert (tmp_path / "lock").read_text() == str(os.getpid())
    assert not (tmp_path / "lock").exists()


def test_one_process_cannot_hold_a_lock_twice(tmp_path):
    with locked(tmp_path / "lock", tmp_path / "tree"):
        with pytest.raises(OutputError, match="being built right now"), locked(tmp_path / "lock", tmp_path / "tree"):
            pass
        assert (tmp_path / "lock").exists()


def test_a_lock_that_its_holder_removes_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """Between opening the file and locking it, its holder ends and removes it."""
    import fcntl

    real, gone = fcntl.flock, []

    def flock(file, how):
        if not gone:
            gone.append((tmp_path / "lock").unlink())
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "lock", tmp_path / "tree"):
        assert gone
        assert (tmp_path / "lock").exists()


def test_a_failing_builder_lets_go(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock", tmp_path / "tree"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["pipe", "link", "directory", "text"])
def test_what_lies_in_the_lock_files_place_is_neither_waited_for_nor_emptied(kind, tmp_path):
    path = tmp_path / "lock"
    (tmp_path / "thesis.tex").write_text("years")
    {
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to("thesis.tex"),
        "directory": path.mkdir,
        "text": lambda: path.write_text("mine"),
    }[kind]()
    with pytest.raises(OutputError, match="is not a lock file"), locked(path, tmp_path / "tree"):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "years"
    assert os.path.lexists(path) and (kind != "text" or path.read_text() == "mine")


@pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
def test_a_full_disk_leaves_no_lock_file_behind(call, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"), locked(tmp_path / "lock", tmp_path / "tree"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_locks_leaves_no_lock_file_behind(tmp_path, monkeypatch):
    import fcntl

    def refused(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(OSError, match="No locks"), locked(tmp_path / "lock", tmp_path / "tree"):
        pass
    assert list(tmp_path.iterdir()) == []
