"""Limits that contradict each other are refused when they are stated."""

from __future__ import annotations

import pytest

from ditto.configs import Limits
from ditto.errors import ConfigError

GOOD = {"max_batch_size": 2, "max_input_len": 8, "max_seq_len": 16, "max_num_tokens": 32}


def test_limits_keep_what_they_are_given():
    assert Limits(**GOOD).max_prompt_embedding_table_size == 0


@pytest.mark.parametrize("name", GOOD)
def test_a_limit_below_one_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} is 0"):
        Limits(**{**GOOD, name: 0})


def test_a_prompt_limit_that_leaves_no_room_is_refused():
    with pytest.raises(ConfigError, match="max_input_len 16 leaves no room for an answer in max_seq_len 16"):
        Limits(**{**GOOD, "max_input_len": 16})


@pytest.mark.parametrize("usual", [-1, 9])
def test_a_usual_prompt_beyond_the_limit_is_refused(usual):
    with pytest.raises(ConfigError, match=f"opt_input_len {usual} is not between 0 and max_input_len 8"):
        Limits(**GOOD, opt_input_len=usual)


@pytest.mark.parametrize("rows", [-1, 2**31])
def test_a_prompt_table_that_there_cannot_be_is_refused(rows):
    with pytest.raises(ConfigError, match=f"max_prompt_embedding_table_size is {rows}"):
        Limits(**GOOD, max_prompt_embedding_table_size=rows)
