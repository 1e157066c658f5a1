"""The GPU session's runner, with engines that PyTorch computes: each call fits the profile that it is for."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
import torch

from ditto import LlavaModel
from ditto.reference import relative_error
from ditto.runtime import Request, open_session
from ditto.runtime.session import Session, Turn
from ditto.runtime.tensorrt import KVCache, TensorRTRunner, TensorRTSession
from tests.support.engines import CpuEngines, Late
from tests.support.models import llava

USUAL, PICTURE = 27, 16
DECODE = "decode-2x64"  # for as many slots as the cache has
NOTHING = torch.zeros(2, dtype=torch.int64)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    builder = (
        LlavaModel.from_model(llava(text={"num_hidden_layers": 3}))
        .with_batch(2)
        .with_target("tensorrt-rtx")
        .with_weights("outside")
    )
    return builder.with_opt_input_len(USUAL).build_all(tmp_path_factory.mktemp("usual") / "tree")


@pytest.fixture
def engines(tree, monkeypatch):
    """The tree's engines; memory counts as a GPU's."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    monkeypatch.setattr("ditto.runtime.execution.Aside", Late)
    return CpuEngines(tree)


@pytest.fixture
def runners(tree, engines):
    """Two rows of the session for GPUs, and of the reference."""
    session = TensorRTSession.__new__(TensorRTSession)
    Session.__init__(session, tree)
    session.device = torch.device("cpu")
    session._loading = Future()
    session._loading.set_result(engines)
    return TensorRTRunner(session, KVCache(session, 2), 2), open_session(tree, "reference").start(2)


def prompt(row, length, seed=0):
    """A prompt with a picture near its beginning."""
    generator = torch.Generator().manual_seed(seed + row)
    ids = torch.randint(5, 90, (length,), generator=generator).tolist()
    ids[2 : 2 + PICTURE] = range(128, 128 + PICTURE)
    return Turn(row, Request(tuple(ids), torch.randn(PICTURE, 64, generator=generator)), 0)


@pytest.mark.parametrize(
    ("lengths", "profile"),
    [
        ([USUAL], f"prefill-1x{USUAL}"),
        ([USUAL - 2], f"prefill-1x{USUAL}"),
        ([USUAL - 3, USUAL - 1], f"prefill-2x{USUAL}"),
        ([USUAL - 5], "prefill"),
        ([USUAL + 1, 20], "prefill"),
    ],
)
def test_prompts_and_the_next_token_are_the_references(runners, engines, lengths, profile):
    for seed in (0, 1):  # the second time over what the first left in memory
        turns = [prompt(row, length, seed) for row, length in enumerate(lengths)]
        found, wanted = (runner.step(turns, NOTHING) for runner in runners)
        assert relative_error(found, wanted) < 1e-5
    assert engines.made == [profile]
    later = [Turn(turn.row, turn.request, past=len(turn.request.ids)) for turn in turns]
    found, wanted = (runner.step(later, torch.tensor([7, 9])) for runner in runners)
    assert relative_error(found, wanted) < 1e-5
    assert engines.made[-1] == DECODE


def test_a_row_that_joins_has_its_own_place_in_the_cache(runners, engines):
    first, second = prompt(0, USUAL), prompt(1, USUAL)
    for turns in ([first], [Turn(0, first.request, past=USUAL), second]):
        found, wanted = (runner.step(turns, torch.tensor([7, 9])) for runner in runners)
        assert relative_error(found, wanted) < 1e-5
    assert engines.made == [f"prefill-1x{USUAL}", f"prefill-1x{USUAL}", DECODE]


def test_prompts_of_any_length_are_padded_to_few_lengths(runners, engines):
    longest = engines.tree.config("llm")["build_config"]["max_input_len"]
    assert USUAL + 1 < longest <= 64
    for length in (9, USUAL - 5, USUAL + 1):
        runners[0].step([prompt(0, length)] if length > PICTURE + 2 else [Turn(0, Request((5,) * length), 0)], NOTHING)
    ran = {done.shapes["input_ids"] for done in engines._parts["llm"]._engines[0].log if done.profile == "prefill"}
    assert ran == {(1, longest)}
