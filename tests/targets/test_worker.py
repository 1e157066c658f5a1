"""A process that compiles: what it says can be read, and it does not outlive the one that it works for."""

from __future__ import annotations

import json
import os
import subprocess
import sys

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


def test_it_loads_no_transformers():
    code = "import sys, ditto.targets.worker; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
