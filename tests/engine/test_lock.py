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
