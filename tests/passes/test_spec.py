"""A pass as plain data is the same pass when it is read back."""

from __future__ import annotations

import json

import pytest
from attrs import asdict

from ditto.engine import PassSpec
from ditto.passes import SIMPLIFY, NetworkPass
from ditto.passes.network_pass import NodePass
from ditto.passes.spec import PASSES, passes_of, specs_of
from ditto.targets.tensorrt.tuning import H200

ALL = (*SIMPLIFY, *H200.vision_passes(), *H200.prefill_passes(), *H200.decode_passes())


def test_passes_survive_json():
    data = json.loads(json.dumps([asdict(spec) for spec in specs_of(ALL)]))
    assert passes_of(PassSpec(**each) for each in data) == ALL


def test_every_pass_is_known():
    known = [cls for cls in (*NetworkPass.__subclasses__(), *NodePass.__subclasses__()) if cls is not NodePass]
    ours = {cls.__name__ for cls in known if cls.__module__.startswith("ditto.")}
    assert {name for name in ours if not name.startswith("_")} == set(PASSES)
    assert {type(each).__name__ for each in ALL} == set(PASSES)


def test_a_pass_is_shown_with_its_parameters():
    (spec,) = specs_of([H200.split_k])
    assert spec.text() == "SplitK(shortest_part=512, many_columns=8192, alignment=8)"


@pytest.mark.parametrize("spec", [PassSpec("SplitJ", {}), PassSpec("SplitK", {"shortest": 1})])
def test_an_unknown_pass_or_parameter_is_not_accepted(spec):
    with pytest.raises(Exception, match=r"SplitJ|SplitK"):
        passes_of([spec])
