"""A process that compiles: what it says can be read, and it does not outlive the one that it works for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ditto import errors
from ditto.errors import BuildError, DittoError, Place
from ditto.targets.worker import error_in, error_out

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DittoError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("where", [None, "a file", Place("model.layers.0", "modeling.py:7")], ids=str)
def test_an_error_arrives_as_it_was(kind, where):
    error = kind.__new__(kind)
    DittoError.__init__(error, "it failed: 'ü'", where, "mend it")
    arrived = error_in(*json.loads(json.dumps(error_out(error))))
    assert type(arrived) is kind
    assert (str(arrived), arrived.where, arrived.args) == (str(error), where, error.args)


def test_an_error_without_a_remedy_stays_so():
    assert error_in(*error_out(BuildError("no"))).remedy is None


def begun(parent):
    code = f"from ditto.targets.worker import main; main({parent}, False)"
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_it_ends_with_its_orders():
    process = begun(os.getpid())
    said, _ = process.communicate(timeout=60)
    assert (said, process.returncode) == (b"", 0)


def test_it_does_not_begin_for_a_process_that_is_gone():
    process = begun(1 << 22)
    assert process.wait(60) == 1
    process.communicate()


def test_it_ends_with_its_parent_though_its_orders_may_go_on():
    code = f"""
import subprocess, sys, time
worker = "import os; from ditto.targets.worker import main; print('up', flush=True); main(os.getppid(), False)"
child = subprocess.Popen([{sys.executable!r}, "-c", worker], stdout=subprocess.PIPE, text=True)
assert child.stdout.readline() == "up\\n"
time.sleep(0.5)
print(child.pid, flush=True)
time.sleep(60)
"""
    read, write = os.pipe()
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=read, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    until = time.monotonic() + 5
    while Path("/proc", str(child), "stat").exists() and time.monotonic() < until:
        time.sleep(0.02)
    state = Path("/proc", str(child), "stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
    os.close(read)
    os.close(write)


def test_what_libraries_print_is_not_taken_for_its_words():
    code = f"""
import os
from ditto.targets import worker
worker._fulfil = lambda text, pipe: (print("noise", flush=True), os.system("echo more"), pipe.send("done", text))
worker.main({os.getpid()}, False)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdin.write("an order\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline()) == ["done", "an order\n"]
    said, noise = process.communicate()
    assert (said, noise) == ("", "noise\nmore\n")


def test_it_loads_no_transformers():
    code = "import sys, ditto.targets.worker; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
