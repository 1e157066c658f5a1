"""What calls hand on has a place as long as somebody is to read it, and the place is another's afterwards."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from attrs import evolve

from ditto.network import Spec, symbol
from ditto.network.schedule import Call, Schedule
from ditto.runtime.activation_arena import ALIGNMENT, ActivationArena, aligned

BATCH, LENGTH = symbol("batch"), symbol("length")
STATE, MASK = Spec((BATCH, LENGTH, 48), torch.float16), Spec((BATCH, 1, LENGTH), torch.bool)
SPECS = (STATE, MASK, Spec((7,), torch.float32), Spec((BATCH, LENGTH, 24), torch.float32))
SIZES = ({"batch": 1, "length": 1}, {"batch": 3, "length": 5}, {"batch": 2, "length": 640})


@pytest.mark.parametrize(("size", "wanted"), [(0, 0), (1, 256), (255, 256), (256, 256), (257, 512), (10**9, 10**9)])
def test_sizes_are_rounded_up_to_whole_multiples(size, wanted):
    assert aligned(size) == wanted


def calls_of(*tensors, between):
    """Schedule of tensors, each of which is what it takes and gives."""
    made = (Call(0, {str(index): name for index, name in enumerate(names)}) for names in tensors)
    return Schedule(tuple(made), between)


def chain(blocks):
    """A state that block after block makes of the one before, and a mask that all of them read."""
    states = [f"state {index}" for index in range(blocks + 1)]
    pairs = enumerate(itertools.pairwise(states))
    steps = ([before, "mask", f"weight {index}", after] for index, (before, after) in pairs)
    between = {"mask": MASK, **dict.fromkeys(states, STATE)}
    return calls_of(["ids", "mask", states[0]], *steps, [states[-1], "logits"], between=between)


@pytest.mark.parametrize("blocks", [1, 2, 5, 80])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_chain_needs_two_places_of_a_kind(blocks, sizes):
    _, end = ActivationArena(chain(blocks)).laid_out(sizes)
    tokens = sizes["batch"] * sizes["length"]
    assert end == 2 * aligned(tokens * 48 * 2) + aligned(tokens)


def test_a_tensor_has_the_shape_that_sizes_give_it():
    places, _ = ActivationArena(chain(3)).laid_out({"batch": 3, "length": 5})
    assert {name: shape for name, (_, shape) in places.items()} == {
        "mask": (3, 1, 5),
        **{f"state {index}": (3, 5, 48) for index in range(4)},
    }


def test_what_nobody_reads_gives_its_place_back_at_once():
    names = ("a", "unread", "b")
    calls = calls_of(["x", "a", "unread"], ["a", "b"], ["b", "y"], between=dict.fromkeys(names, STATE))
    assert ActivationArena(calls).laid_out(SIZES[1])[1] == 2 * aligned(3 * 5 * 96)


def drawn(seed):
    """Schedule that read any values made before, and network inputs; some of what they make is an output."""
    rng = random.Random(seed)
    made, between, tensors = ["x"], {}, []
    for number in range(rng.randint(1, 12)):
        taken = [rng.choice(made[-rng.randint(1, len(made)) :]) for _ in range(rng.randint(0, 4))]
        given = [f"value {number}.{index}" for index in range(rng.randint(1, 3))]
        between.update({name: rng.choice(SPECS) for name in given if rng.random() < 0.8})
        order = [*taken, *given, f"weight {number}"]
        rng.shuffle(order)
        tensors.append(order)
        made += given
    return calls_of(*tensors, between=between)


@pytest.mark.parametrize("seed", range(300))
def test_no_place_is_used_again_while_its_tensor_is_to_be_read(seed):
    calls = drawn(seed)
    uses = {
        name: [index for index, call in enumerate(calls.calls) if name in call.tensors.values()]
        for name in calls.between
    }
    between = ActivationArena(calls)
    for sizes in SIZES:
        places, end = between.laid_out(sizes)
        assert set(places) == set(calls.between)
        ranges = {}
        for name, (offset, shape) in places.items():
            size = torch.empty(shape, dtype=calls.between[name].dtype, device="meta").nbytes
            ranges[name] = (offset, offset + size)
            assert offset % ALIGNMENT == 0 and offset + size <= end
        for one, other in itertools.combinations(places, 2):
            apart = uses[one][-1] < uses[other][0] or uses[other][-1] < uses[one][0]
            (start, stop), (begin, finish) = ranges[one], ranges[other]
            assert apart or stop <= begin or finish <= start, f"{one} and {other} are in one place"


def test_nothing_is_handed_on_by_a_single_call():
    assert ActivationArena(calls_of(["x", "y"], between={})).laid_out({"batch": 4}) == ({}, 0)


def beside(calls, numbers):
    """The same calls, of which some run beside those that follow."""
    return Schedule(
        tuple(evolve(call, concurrent=number in numbers) for number, call in enumerate(calls.calls)), calls.between
    )


def test_what_is_read_beside_others_stays_until_the_next_of_its_kind_has_begun():
    blocks = [["a", "b", "keys 1"], ["keys 1", "cache 1"], ["b", "c", "keys 2"], ["keys 2", "cache 2"]]
    blocks += [["c", "d", "keys 3"], ["keys 3", "cache 3"], ["d", "y"]]
    between = dict.fromkeys(["a", "b", "c", "d", "keys 1", "keys 2", "keys 3"], STATE)
    calls = calls_of(["x", "a"], *blocks, between=between)
    one_by_one, overlapping = (
        {name: offset for name, (offset, _) in ActivationArena(each).laid_out(SIZES[1])[0].items()}
        for each in (calls, beside(calls, {2, 4, 6}))
    )
    assert len({one_by_one[f"keys {number}"] for number in (1, 2, 3)} | {one_by_one["c"]}) < 4
    assert overlapping["keys 1"] not in (overlapping["c"], overlapping["keys 2"])
    assert overlapping["keys 2"] not in (overlapping["d"], overlapping["keys 3"])
    assert len(set(overlapping.values())) < len(between)


@pytest.mark.parametrize("seed", range(100))
def test_no_place_is_used_again_while_it_may_be_read_beside(seed):
    calls = drawn(seed)
    numbers = {number for number in range(len(calls.calls)) if random.Random(seed + number).random() < 0.4}
    ends = {number: min([other for other in numbers if other > number], default=99) for number in numbers}
    places, _ = ActivationArena(beside(calls, numbers)).laid_out(SIZES[1])
    uses = {
        name: [index for index, call in enumerate(calls.calls) if name in call.tensors.values()]
        for name in calls.between
    }
    lasts = {name: max(ends.get(index, index) for index in indices) for name, indices in uses.items()}
    for one, other in itertools.combinations(places, 2):
        apart = lasts[one] < uses[other][0] or lasts[other] < uses[one][0]
        assert apart or places[one][0] != places[other][0], f"{one} and {other} are in one place"
