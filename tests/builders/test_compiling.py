"""How many engines are compiled at a time, and where."""

from __future__ import annotations

import os

import pytest

from ditto import LlavaModel, LlmBuilder
from ditto.builders import compiling
from ditto.builders.compiling import engines_at_a_time
from ditto.builders.plan import plan
from ditto.configs import TrtllmConfig
from ditto.errors import ConfigError
from ditto.progress import recording
from ditto.targets import target
from tests.support.models import llama, llava


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiling") / "model"
    llava().save_pretrained(folder)
    return LlavaModel.from_pretrained(str(folder)).with_target("tensorrt-rtx").with_weights("outside")


@pytest.fixture
def large(monkeypatch):
    """Any model is worth a process here, and there are cores and memory for many."""
    monkeypatch.setattr(compiling, "_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(compiling, "available_memory", lambda: 10**12)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))


def at_a_time(model, jobs="auto"):
    builders = model.builders.values() if isinstance(model, LlavaModel) else [model]
    chosen = next(iter(builders)).resolved_target()
    described = {name: part for builder in builders for name, part in builder.described(chosen).items()}
    return engines_at_a_time(described, chosen, jobs)


def test_small_models_are_compiled_in_one_process(model, tmp_path):
    assert at_a_time(model) == 1
    with recording() as records:
        model.build_all(tmp_path / "tree")
    assert {record.process for record in records} == {os.getpid()}


@pytest.mark.usefixtures("large")
def test_large_ones_get_a_process_for_each_engine(model):
    assert at_a_time(model) == 3
    assert at_a_time(model.llm) == 2
    assert at_a_time(model.vision) == 1


@pytest.mark.usefixtures("large")
def test_no_more_than_there_are_cores_and_memory_for(model, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    assert at_a_time(model) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3})
    assert at_a_time(model) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    monkeypatch.setattr(compiling, "available_memory", lambda: 3 * compiling.WORKER_MEMORY)
    assert at_a_time(model) == 2
    monkeypatch.setattr(compiling, "available_memory", lambda: 10**8)
    assert at_a_time(model) == 1


def test_a_number_is_a_limit_and_no_rule_is_asked(model):
    assert [at_a_time(model, jobs) for jobs in (1, 2, 3, 9)] == [1, 2, 3, 3]
    assert model.with_jobs(2).llm.jobs == model.with_jobs(2).vision.jobs == 2
    assert model.with_jobs(2).with_jobs("auto").llm.jobs == "auto"


@pytest.mark.parametrize("jobs", [0, -1, True, "all"])
def test_what_is_no_number_is_refused(model, jobs):
    with pytest.raises(ConfigError, match=f"the number of jobs is {jobs!r}"):
        model.with_jobs(jobs)


@pytest.mark.usefixtures("large")
def test_what_is_heavy_in_memory_or_needs_a_gpu_is_compiled_in_one_process(model):
    assert at_a_time(model.with_weights("inside"), 3) == 1
    assert at_a_time(LlmBuilder.from_model(llama()).with_target("tensorrt-rtx").with_weights("outside"), 3) == 1
    assert not target("tensorrt").compiles_side_by_side
    assert not target("trtllm", TrtllmConfig()).compiles_side_by_side


@pytest.mark.usefixtures("large")
def test_a_plan_counts_the_memory_of_every_process(model):
    more = plan(model.builders).memory - plan(model.with_jobs(1).builders).memory
    assert more == 3 * compiling.WORKER_MEMORY
