"""Engines are built into files, with the profiles and settings that were asked for."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import pytest
import torch
from attrs import evolve

from ditto.arguments import DynamicDimension
from ditto.bindings import load_native
from ditto.configs import TensorRTBuilderConfig, TensorRTConfig
from ditto.engine import Phase, Profile
from ditto.errors import BuildError, ConfigError
from ditto.network import Network, Spec, symbol
from ditto.network.layers import Activation, ElementWise
from ditto.progress import listening, recording
from ditto.targets import compile as compiling
from ditto.targets.compile import check_settings, compile_networks, compute_capability, shape_range
from tests.support.layers import NoTensors, network_of

TRT = load_native("tensorrt_rtx")
BATCH, WIDTH = symbol("batch"), symbol("width")


@pytest.fixture
def network():
    made = Network("gelu")
    x = made.input("x", Spec((BATCH, 8), torch.float16))
    made.output("y", made.add(Activation("GELU_ERF"), made.add(ElementWise("SUM"), x, x)))
    return made


class Tensors(NoTensors):
    def release(self):
        """Nothing."""


PROFILES = (Profile(Phase.ENCODE, {"batch": DynamicDimension("batch", 1, 2, 4)}),)


def build(network, path, profiles=PROFILES, config=None, capabilities=()):
    return compile_networks([network], profiles, Tensors(), TRT, config or TensorRTConfig(), capabilities, [path])


def test_a_profile_gives_every_inputs_shapes():
    made = network_of(Activation("RELU"), [Spec((BATCH, WIDTH, 3), torch.float32)])
    ranges = {"batch": DynamicDimension("batch", 1, 2, 4), "width": DynamicDimension("width", 5, 6, 7)}
    assert shape_range(Profile(Phase.ENCODE, ranges), made.inputs["input0"]) == ((1, 5, 3), (2, 6, 3), (4, 7, 3))


def test_the_engine_is_in_the_file_and_nothing_else_is(network, tmp_path):
    size = build(network, tmp_path / "model.engine")
    assert (tmp_path / "model.engine").stat().st_size == size > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["model.engine"]


def test_parts_are_in_files_of_their_own(network, tmp_path):
    other = network_of(Activation("RELU"), [Spec((BATCH, 300), torch.float32)])
    paths = [tmp_path / name for name in ("one", "two", "three")]
    size = compile_networks([network, other, network], PROFILES, Tensors(), TRT, TensorRTConfig(), (), paths)
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert sum(path.stat().st_size for path in paths) == size
    alone = [build(each, tmp_path / "alone") for each in (network, other)]
    assert [path.stat().st_size for path in paths] == pytest.approx([alone[0], alone[1], alone[0]], rel=0.02)


@pytest.mark.parametrize(
    "config",
    [
        TensorRTConfig(builder_config=TensorRTBuilderConfig(builder_optimization_level=0)),
        TensorRTConfig(builder_config=TensorRTBuilderConfig(max_aux_streams=1, workspace_bytes=1 << 28, tf32=True)),
    ],
)
def test_settings_are_accepted_by_tensorrt(network, tmp_path, config):
    assert build(network, tmp_path / "model.engine", config=config)


def test_engines_are_built_for_named_gpus(network, tmp_path):
    assert build(network, tmp_path / "two", capabilities=("8.9", "12.0"))


@pytest.mark.parametrize("name", ["9.9", "sm89", ""])
def test_a_gpu_that_is_not_known_is_refused(name):
    with pytest.raises(ConfigError, match="does not build for compute capability") as caught:
        compute_capability(TRT, name)
    assert "8.9" in str(caught.value)


def test_settings_are_checked_before_any_work():
    with pytest.raises(ConfigError, match="compute capability 1.0"):
        check_settings(TRT, TensorRTConfig(), ("8.9", "1.0"))


def test_a_build_that_fails_says_what_tensorrt_said(network, tmp_path):
    wrong = [Profile(Phase.ENCODE, {"batch": DynamicDimension("batch", 1, 2, 4)})] * 2
    network.inputs["x"] = Spec((4, 8), torch.float16)  # the recorded type no longer fits
    with pytest.raises((BuildError, Exception), match=r"."):
        build(network, tmp_path / "model.engine", wrong)


class Ear:
    """What is told of a build."""

    def __init__(self):
        self.heard = []

    def started(self, name, detail):
        self.heard.append((name, detail))

    def advanced(self, name, detail, fraction):
        self.heard.append(fraction)

    def finished(self, record):
        self.heard.append(record.name)


@pytest.mark.parametrize(("parts", "at_once"), [(1, 1), (3, 1), (3, 2)])
def test_progress_goes_from_nothing_to_all(network, tmp_path, monkeypatch, parts, at_once):
    monkeypatch.setattr(compiling, "at_once", lambda parts: at_once)
    ear, paths = Ear(), [tmp_path / str(number) for number in range(parts)]
    with listening(ear), recording() as records:
        compile_networks([network] * parts, PROFILES, Tensors(), TRT, TensorRTConfig(), (), paths)
    fractions = [entry for entry in ear.heard if isinstance(entry, float)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    for part in range(parts):
        steps = [fraction for fraction in fractions if part / parts < fraction <= (part + 1) / parts]
        assert len(steps) > 1
        assert at_once > 1 or steps[-1] == pytest.approx((part + 1) / parts)  # of parts one after the other
    assert (ear.heard[0], ear.heard[-1]) == (("compile", "gelu"), "compile")
    assert [record.name for record in records] == ["compile"]


@pytest.fixture
def many(tmp_path):
    """Parts, more than are compiled at once, and their files."""
    widths = range(8, 24)
    parts = [network_of(Activation("RELU"), [Spec((BATCH, width), torch.float32)]) for width in widths]
    return parts, [tmp_path / str(width) for width in widths]


def test_parts_are_compiled_at_the_same_time_as_many_as_the_machine_can(many, monkeypatch):
    """All that are to be at work at once wait for each other."""
    monkeypatch.setattr(compiling, "at_once", lambda parts: 2)
    meeting = threading.Barrier(2, timeout=60)
    build_one = compiling._build

    def build(*arguments):
        meeting.wait()
        return build_one(*arguments)

    monkeypatch.setattr(compiling, "_build", build)
    parts, paths = many
    assert compile_networks(parts, PROFILES, Tensors(), TRT, TensorRTConfig(), (), paths) > 0
    assert all(path.stat().st_size > 1000 for path in paths)


def test_no_builder_is_made_or_freed_while_another_is_at_work(many, monkeypatch):
    """Making one and freeing one would wait for TensorRT while TensorRT waits for Python."""
    monkeypatch.setattr(compiling, "at_once", lambda parts: 2)
    events, alive, build_one = [], weakref.WeakSet(), compiling._build

    class Builder(compiling._Builder):
        def __init__(self, trt):
            super().__init__(trt)
            events.append("made")
            alive.add(self)
            weakref.finalize(self, events.append, "freed")

    def build(*arguments):
        events.append("begins")
        try:
            return build_one(*arguments)
        finally:
            events.append("ends")

    monkeypatch.setattr(compiling, "_Builder", Builder)
    monkeypatch.setattr(compiling, "_build", build)
    parts, paths = many
    compile_networks(parts, PROFILES, Tensors(), TRT, TensorRTConfig(), (), paths)
    gc.collect()
    assert [event for event in events if event in ("made", "freed")] == ["made", "made", "freed", "freed"]
    work = [index for index, event in enumerate(events) if event in ("begins", "ends")]
    assert work == list(range(2, 2 + 2 * len(parts)))
    assert not alive


def test_a_part_that_fails_ends_the_others(many, monkeypatch):
    monkeypatch.setattr(compiling, "at_once", lambda parts: 2)
    begun, build_one = [], compiling._build

    def build(module, builder, definition, config, path):
        begun.append(path)
        if len(begun) == 3:
            return 0
        return build_one(module, builder, definition, config, path)

    monkeypatch.setattr(compiling, "_build", build)
    parts, paths = many
    with pytest.raises(BuildError, match="could not build the test engine"):
        compile_networks(parts, PROFILES, Tensors(), TRT, TensorRTConfig(), (), paths)
    assert len(begun) < len(parts)


def test_tensorrt_itself_compiles_one_part_at_a_time(many, monkeypatch):
    """It times its kernels on the GPU."""
    at_work, most, build_one = [], [], compiling._build

    def build(*arguments):
        at_work.append(1)
        most.append(len(at_work))
        try:
            return build_one(*arguments)
        finally:
            at_work.pop()

    monkeypatch.setattr(compiling, "_build", build)
    parts, paths = many
    trt = evolve(TRT, library="tensorrt")
    compile_networks(parts[:6], PROFILES, Tensors(), trt, TensorRTConfig(), (), paths[:6])
    assert set(most) == {1}


@pytest.mark.parametrize(("parts", "cores", "wanted"), [(1, 8, 1), (3, 2, 2), (34, 2, 2), (34, 64, 4)])
def test_how_many_parts_are_compiled_at_once(monkeypatch, parts, cores, wanted):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    assert compiling.at_once(parts) == wanted
