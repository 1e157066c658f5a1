"""Nothing is turned into what it is not."""

from __future__ import annotations

import pytest
from attrs import frozen
from cattrs.errors import BaseValidationError

from ditto.errors import ConfigError
from ditto.strict import faults_of, strict_converter


@frozen
class Inner:
    number: int

    def __attrs_post_init__(self):
        if self.number < 0:
            raise ConfigError(f"number is {self.number}")


@frozen
class Outer:
    text: str
    flag: bool
    real: float
    numbers: list[int]
    named: dict[str, Inner]
    maybe: int | None = None


RIGHT = {"text": "a", "flag": True, "real": 1, "numbers": [1, 2], "named": {"a": {"number": 3}}}


def test_what_is_right_is_taken():
    made = strict_converter().structure(RIGHT, Outer)
    assert made == Outer("a", True, 1.0, [1, 2], {"a": Inner(3)})
    assert type(made.real) is float


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": 1}, "1 is not of type str @ $.text"),
        ({"flag": 1}, "1 is not of type bool @ $.flag"),
        ({"real": "1.5"}, "'1.5' is not of type float @ $.real"),
        ({"real": True}, "True is not of type float @ $.real"),
        ({"numbers": "12"}, "'12' is not a list @ $.numbers"),
        ({"numbers": [1, 2.0]}, "2.0 is not of type int @ $.numbers[1]"),
        ({"numbers": [True]}, "True is not of type int @ $.numbers[0]"),
        ({"named": [["a", {"number": 3}]]}, "is not an object @ $.named"),
        ({"named": {"a": 7}}, "7 is not an object @ $.named['a']"),
        ({"named": {"a": []}}, "[] is not an object @ $.named['a']"),
        ({"named": {"a": {"number": -3}}}, "number is -3 @ $.named['a']"),
        ({"maybe": "1"}, "'1' is not of type int @ $.maybe"),
        ({"more": 1}, "extra fields found (more) @ $"),
    ],
)
def test_every_fault_is_named_with_its_place(changes, message):
    with pytest.raises(BaseValidationError) as caught:
        strict_converter().structure({**RIGHT, **changes}, Outer)
    assert message in faults_of(caught.value)


def test_keys_that_are_not_known_may_be_let_through():
    assert strict_converter(known_keys_only=False).structure({**RIGHT, "more": 1}, Outer).text == "a"
