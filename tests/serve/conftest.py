"""One server for all tests of a file that need no settings of their own."""

from __future__ import annotations

import pytest

from ditto.text.model import load
from tests.support.serving import client, serving


@pytest.fixture(scope="module")
def server(shapes_tree):
    with serving(load(shapes_tree, max_waiting=64), keys=("first", "second")) as (address, _):
        yield address


@pytest.fixture(scope="module")
def openai(server):
    with client(server, "second") as openai:
        yield openai
