"""Options with several values leave the argument without a name alone, or it is said that nobody can tell."""

from __future__ import annotations

import pytest

from ditto.cli.main import parser

UNDERSTOOD = {
    "run OUT --prompt A B --prompt C": {"prompt": ["A", "B", "C"]},
    "run --prompt A B OUT": {"prompt": ["A", "B"]},
    "run --image a.png --prompt A OUT": {"image": ["a.png"], "prompt": ["A"]},
    "run --image a.png OUT --prompt A": {"image": ["a.png"], "prompt": ["A"]},
    "run --image a.png b.png --image c.png --prompt A OUT --json": {
        "image": ["a.png", "b.png", "c.png"],
        "prompt": ["A"],
    },
    "run --image a.png b.png OUT --prompt A B": {"image": ["a.png", "b.png"], "prompt": ["A", "B"]},
    "run --prompt A B --image a.png OUT": {"image": ["a.png"], "prompt": ["A", "B"]},
    "run --prompt=A OUT": {"prompt": ["A"]},
    "run --prompt A -- OUT": {"prompt": ["A"]},
    "run --max-new-tokens 3 OUT --prompt A": {"prompt": ["A"], "max_new_tokens": 3},
    "verify --image a.png b.png --prompt A OUT": {"image": ["a.png", "b.png"], "prompt": ["A"]},
    "verify --prompt A --image a.png --prompt B OUT": {"image": ["a.png"], "prompt": ["A", "B"]},
    "bench --batch 1 2 OUT --batch 4": {"batch": [1, 2, 4]},
    "bench --context 8 --batch 1 2 OUT": {"batch": [1, 2], "context": [8]},
    "bench --against OUT": {"against": "manifest"},
    "bench OUT --against model": {"against": "model"},
}


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "OUT").mkdir()
    (tmp_path / "a.png").touch()


@pytest.mark.parametrize("line", UNDERSTOOD)
def test_every_order_means_the_same(line):
    options = parser().parse_args(line.split())
    assert str(options.tree) == "OUT"
    for name, value in UNDERSTOOD[line].items():
        assert getattr(options, name) == value


def test_a_model_too():
    for line in ("plan --compute-capability 8.9 --compute-capability 9.0 M", "plan M --compute-capability 8.9 9.0"):
        options = parser().parse_args(line.split())
        assert (options.model, options.compute_capability) == ("M", ["8.9", "9.0"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run --prompt A B --image a b", "which of these is the argument without a name: B, b? give it first"),
        ("run --image OUT OUT --prompt A OUT .", "which of these is the argument without a name: OUT, .?"),
        ("run --prompt A", "the following arguments are required: OUT"),
        ("run OUT OUT --prompt A", "unrecognized arguments: OUT"),
        ("run OUT", "one of the arguments --prompt --prompt-file is required"),
        ("run OUT --prompt", "argument --prompt: expected at least one argument"),
        ("bench OUT --batch one", "argument --batch: invalid int value: 'one'"),
        ("run OUT --prompt A --nothing", "unrecognized arguments: --nothing"),
    ],
)
def test_what_nobody_can_tell_is_an_error(line, message, capsys):
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(line.split())
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_prompt_longer_than_a_name_can_be():
    options = parser().parse_args(["run", "--image", "a", "b", "OUT", "--prompt", "A", "long " * 10_000])
    assert str(options.tree) == "OUT"
