"""stdout must arrive; stderr may."""

from __future__ import annotations

import io
import os
import sys

import pytest

from ditto.cli.streams import checked_stdout, optional_stderr
from ditto.errors import OutputError


def test_what_the_encoding_lacks_is_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with checked_stdout():
        print("bäume \U0001f332 \udce9")
    sys.stdout.flush()
    assert raw.getvalue() == b"b\\xe4ume \\U0001f332 \\udce9\n"


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_disk_that_is_full_is_said(size, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OutputError, match="stdout cannot be written: No space left on device"), checked_stdout():
            print("x" * size)
        full.flush()  # as Python does at its end


def test_a_disk_that_is_full_is_said_when_argparse_ends_the_program(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OutputError), checked_stdout():
            print("usage")
            raise SystemExit(0)


def test_nobody_who_reads_is_told_apart(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nobody:
        monkeypatch.setattr(sys, "stdout", nobody)
        with pytest.raises(BrokenPipeError), checked_stdout():
            print("x")
        nobody.flush()


def test_closed_streams(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    with optional_stderr():
        print("nowhere", file=sys.stderr)
        with pytest.raises(OutputError, match="stdout is closed"), checked_stdout():
            pass
    assert sys.stdin.read() == ""


def test_an_error_inside_passes_unchanged(capsys):
    with optional_stderr(), pytest.raises(KeyError), checked_stdout():
        print("before")
        raise KeyError("x")
    assert capsys.readouterr().out == "before\n"


def test_stderr_that_is_full_ends_nothing(monkeypatch):
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        with optional_stderr():
            print("a stage", file=sys.stderr)
            print("another", file=sys.stderr)
        full.flush()
