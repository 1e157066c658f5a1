"""The GPU session's runner, with engines that PyTorch computes: each call fits the profile that it is for."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
import torch
from attrs import frozen

from ditto import LlavaModel
from ditto.network.dims import evaluate
from ditto.reference import Constants, relative_error, run
from ditto.runtime import Request, open_session
from ditto.runtime.session import Session, Turn
from ditto.runtime.tensorrt import KVCache, TensorRTRunner, TensorRTSession
from ditto.runtime.weights import network_of, weights_of
from tests.support.models import llava

USUAL, PICTURE = 27, 16
NOTHING = torch.zeros(2, dtype=torch.int64)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    builder = LlavaModel.from_model(llava()).with_batch(2).with_target("tensorrt-rtx").with_weights("outside")
    return builder.with_opt_input_len(USUAL).build_all(tmp_path_factory.mktemp("usual") / "tree")


class _Engine:
    """An execution on a profile. What it is asked for is kept."""

    def __init__(self, tree, name, profile):
        self.network = network_of(tree, name)
        self.constants = Constants(self.network, weights_of(tree, name))
        self.profile, self.ranges = list(tree.component(name).profiles.items())[profile]
        self.bound = {}

    def bind(self, tensors):
        self.bound.update(tensors)

    def enqueue(self):
        for name, spec in self.network.inputs.items():
            for end, compared in ((0, int.__le__), (2, int.__ge__)):
                sizes = {dim: values[end] for dim, values in self.ranges.items()}
                shape = [evaluate(dim, sizes) for dim in spec.shape]
                assert all(map(compared, shape, self.bound[name].shape)), (self.profile, name)
        made = run(self.network, {name: self.bound[name] for name in self.network.inputs}, self.constants)
        for name, tensor in made.items():
            self.bound[name].copy_(tensor)


@frozen
class _Engines:
    tree: object
    made: list[_Engine]

    def execution(self, name, profile, eager=True):
        del eager
        self.made.append(_Engine(self.tree, name, profile))
        return self.made[-1]


@pytest.fixture
def engines(tree):
    return _Engines(tree, [])


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
    assert [engine.profile for engine in engines.made] == [profile]
    later = [Turn(turn.row, turn.request, past=len(turn.request.ids)) for turn in turns]
    found, wanted = (runner.step(later, torch.tensor([7, 9])) for runner in runners)
    assert relative_error(found, wanted) < 1e-5
    assert engines.made[-1].profile == "decode-2"


def test_a_row_that_joins_has_its_own_place_in_the_cache(runners, engines):
    first, second = prompt(0, USUAL), prompt(1, USUAL)
    for turns in ([first], [Turn(0, first.request, past=USUAL), second]):
        found, wanted = (runner.step(turns, torch.tensor([7, 9])) for runner in runners)
        assert relative_error(found, wanted) < 1e-5
    assert [engine.profile for engine in engines.made] == [f"prefill-1x{USUAL}", f"prefill-1x{USUAL}", "decode-2"]
