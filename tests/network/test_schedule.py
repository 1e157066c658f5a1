"""Schedule go to a file and come back; a file that is not one of calls is named with its faults."""

from __future__ import annotations

import json

import pytest
import torch

from ditto.errors import TreeError
from ditto.network import Spec, symbol
from ditto.network.schedule import Call, Schedule, load_schedule, save_schedule

BATCH = symbol("batch")
CALLS = Schedule(
    (
        Call(0, {"input_ids": "input_ids", "embedding.0": "embedding.0"}),
        Call(1, {"embedding.0": "embedding.0", "layers.{q,k}.weight": "layers.0.{q,k}.weight", "h": "layers.0.1"}),
        Call(1, {"embedding.0": "layers.0.1", "layers.{q,k}.weight": "layers.1.{q,k}.weight", "h": "größer"}),
    ),
    {"embedding.0": Spec((BATCH, 1, 64), torch.float16), "layers.0.1": Spec((BATCH, 64), torch.bfloat16)},
)


@pytest.fixture
def path(tmp_path):
    """A file of calls."""
    save_schedule(CALLS, tmp_path / "schedule.json")
    return tmp_path / "schedule.json"


def test_calls_come_back_in_their_order(path):
    assert load_schedule(path) == CALLS


def test_the_file_is_for_people_too(path):
    text = path.read_text(encoding="utf-8")
    assert '"embedding.0": "float16[batch, 1, 64]"' in text
    assert "größer" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the calls: "),
        (b"{", "cannot read the calls: Expecting property name"),
        (b"\xff\xfe", "cannot read the calls: 'utf-8' codec can't decode"),
        (b"[]", "the calls have format None, not 2"),
        (b'{"format": 7}', "the calls have format 7, not 2"),
    ],
)
def test_a_file_that_is_missing_or_something_else_is_named(path, content, message):
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TreeError) as caught:
        load_schedule(path)
    assert caught.value.cause.startswith(message)
    assert (caught.value.where, caught.value.remedy) == (str(path), "build the tree again")


def lose_the_calls(data):
    del data["calls"]


def add_a_word(data):
    data["order"] = 1


def misspell_a_spec(data):
    data["between"]["embedding.0"] = "float17[batch]"


def lose_a_part(data):
    del data["calls"][1]["part"]


def call_no_number(data):
    data["calls"][0]["part"] = "first"


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        (lose_the_calls, "required field missing @ $.calls"),
        (add_a_word, "extra fields found (order) @ $"),
        (misspell_a_spec, "$.between['embedding.0']"),
        (lose_a_part, "required field missing @ $.calls[1].part"),
        (call_no_number, "'first' is not of type int @ $.calls[0].part"),
    ],
)
def test_a_damaged_file_is_refused_with_the_fault(path, damage, place):
    data = json.loads(path.read_text())
    damage(data)
    path.write_text(json.dumps(data))
    with pytest.raises(TreeError) as caught:
        load_schedule(path)
    assert caught.value.cause.startswith("the file of calls is damaged: ")
    assert place in caught.value.cause
    assert caught.value.where == str(path)
