"""The GPU session's runner, with engines that PyTorch computes: each call fits the profile that it is for."""

from __future__ import annotations

import weakref
from concurrent.futures import Future
from contextlib import nullcontext

import pytest
import torch
from attrs import evolve

from ditto import LlavaModel
from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.reference import relative_error
from ditto.runtime import Request, open_session
from ditto.runtime.encoding import EncoderShapes
from ditto.runtime.memory import MemoryPlan
from ditto.runtime.session import ScheduledRow, Session
from ditto.runtime.tensorrt import KVCache, TensorRTRunner, TensorRTSession, _VisionCall
from tests.support.engines import CpuEngines, Late
from tests.support.models import image_features, llava

USUAL, IMAGE = 27, 16
DECODE = "decode batch=2 kv_length=64"  # for as many slots as the cache has
NOTHING = torch.zeros(2, dtype=torch.int64)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    builder = (
        LlavaModel.from_model(llava(text={"num_hidden_layers": 3}))
        .with_batch(2)
        .with_target("tensorrt-rtx")
        .with_optimize("latency")
        .with_tuning("9.0")
    )
    return builder.with_opt_input_len(USUAL).build_all(tmp_path_factory.mktemp("usual") / "tree")


@pytest.fixture
def engines(tree, monkeypatch):
    """The tree's engines; memory counts as a GPU's."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    monkeypatch.setattr("ditto.runtime.execution.SideStream", Late)
    return CpuEngines(tree)


@pytest.fixture
def session(tree, engines):
    """The session for GPUs."""
    made = TensorRTSession.__new__(TensorRTSession)
    Session.__init__(made, tree)
    made.device = torch.device("cpu")
    made._loading = Future()
    made._loading.set_result(engines)
    return made


@pytest.fixture
def runners(tree, session):
    """Two rows of the session for GPUs, and of the reference."""
    return TensorRTRunner(session, KVCache(session, 2), 2), open_session(tree, "reference").start(2)


def prompt(row, length, seed=0):
    """A prompt with an image near its beginning."""
    generator = torch.Generator().manual_seed(seed + row)
    ids = torch.randint(5, 90, (length,), generator=generator).tolist()
    ids[2 : 2 + IMAGE] = range(128, 128 + IMAGE)
    return ScheduledRow(row, Request(tuple(ids), torch.randn(IMAGE, 64, generator=generator)), 0)


@pytest.mark.parametrize(
    ("lengths", "profile"),
    [
        ([USUAL], f"prefill batch=1 sequence={USUAL}"),
        ([USUAL - 2], f"prefill batch=1 sequence={USUAL}"),
        ([USUAL - 3, USUAL - 1], f"prefill batch=2 sequence={USUAL}"),
        ([USUAL - 5], "prefill"),
        ([USUAL + 1, 20], "prefill"),
    ],
)
def test_prompts_and_the_next_token_are_the_references(runners, engines, lengths, profile):
    for seed in (0, 1):  # the second time over what the first left in memory
        scheduled = [prompt(row, length, seed) for row, length in enumerate(lengths)]
        found, wanted = (runner.step(scheduled, NOTHING) for runner in runners)
        assert relative_error(found, wanted) < 1e-5
    assert engines.made == [profile]
    later = [ScheduledRow(each.row, each.request, past=len(each.request.ids)) for each in scheduled]
    found, wanted = (runner.step(later, torch.tensor([7, 9])) for runner in runners)
    assert relative_error(found, wanted) < 1e-5
    assert engines.made[-1] == DECODE


def test_a_row_that_joins_has_its_own_place_in_the_cache(runners, engines):
    first, second = prompt(0, USUAL), prompt(1, USUAL)
    for scheduled in ([first], [ScheduledRow(0, first.request, past=USUAL), second]):
        found, wanted = (runner.step(scheduled, torch.tensor([7, 9])) for runner in runners)
        assert relative_error(found, wanted) < 1e-5
    assert engines.made == [f"prefill batch=1 sequence={USUAL}", f"prefill batch=1 sequence={USUAL}", DECODE]


def test_prompts_of_any_length_are_padded_to_few_lengths(runners, engines):
    longest = engines.tree.config("llm")["build_config"]["max_input_len"]
    assert USUAL + 1 < longest <= 64
    for length in (9, USUAL - 5, USUAL + 1):
        runners[0].step(
            [prompt(0, length)] if length > IMAGE + 2 else [ScheduledRow(0, Request((5,) * length), 0)], NOTHING
        )
    ran = {
        done.shapes["input_ids"] for done in engines._parts["llm"]._engines[0].log if done.profile.label() == "prefill"
    }
    assert ran == {(1, longest)}


def test_a_cache_that_is_too_small_is_freed_before_a_larger_one_is_made(tree, session, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 40, 1 << 40))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(TensorRTSession, "working", lambda self: nullcontext())
    session._plan, session._idle = MemoryPlan.of(tree), []
    small = session._cache(1)
    TensorRTRunner(session, small, 1).step([prompt(0, USUAL - 5)], NOTHING[:1])  # on the profile for all prompts
    session._idle.append(small)
    tensors = [weakref.ref(tensor) for tensor in small.tensors.values()]
    assert session._cache(1) is small
    session._idle.append(small)
    del small
    assert session._cache(2).rows == 2
    assert [tensor() for tensor in tensors] == [None] * len(tensors)


def test_images_are_counted_by_whatever_name_their_number_has(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    monkeypatch.setattr("ditto.runtime.graphs.capture", pytest.fail)
    model = llava()
    hint = TensorTypeHint((DynamicDimension("images", 1, 2, 3), 3, 28, 28), torch.float32)
    builder = (
        LlavaModel.from_model(model)
        .with_batch(3)
        .with_target("tensorrt-rtx")
        .with_optimize("latency")
        .with_tuning("9.0")
        .vision
    )
    tree = evolve(builder, inputs={"input": hint}).build(tmp_path / "tree")
    pixels = torch.randn(3, 3, 28, 28)
    component = tree.component("vision")
    call = _VisionCall(EncoderShapes(component), component, CpuEngines(tree), {"images": 3})
    assert relative_error(call({"input": pixels}), image_features(model, pixels)) < 1e-5
