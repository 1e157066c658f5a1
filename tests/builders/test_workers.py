"""Engines compiled in processes of their own are the same, fail in the same words, and leave no process behind."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from loguru import logger

from ditto import EngineTree, LlavaModel
from ditto.builders.workers import compile_side_by_side
from ditto.configs import TensorRTBuilderConfig, TensorRTConfig
from ditto.errors import BuildError, OutputError
from ditto.progress import listening, recording
from tests.support.forks import in_child
from tests.support.models import llava


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny LLaVA on disk."""
    folder = tmp_path_factory.mktemp("workers") / "model"
    llava(text={"intermediate_size": 512}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(saved):
    made = LlavaModel.from_pretrained(str(saved)).with_batch(2).with_target("tensorrt-rtx").with_weights("outside")
    return made.with_opt_input_len(0)  # decode takes longest, then the tower


@pytest.fixture(scope="module")
def alone(model, tmp_path_factory):
    """Its tree, compiled by one process."""
    return model.with_jobs(1).build_all(tmp_path_factory.mktemp("alone") / "tree")


def children(process="self"):
    """The processes that one has begun and that run."""
    try:
        tasks = list(Path("/proc", str(process), "task").iterdir())
        found = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [child for child in found if runs(child)]


def runs(process):
    try:
        return Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def workers(process="self"):
    """Those of them that compile."""
    return [
        child for child in children(process) if b"ditto.targets.worker" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def within(seconds, condition):
    until = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < until:
        time.sleep(0.005)
    return found


class AtStart:
    """Does something when the first compilation begins."""

    def __init__(self, act):
        self.act, self.done = act, False

    def started(self, name, detail):
        if name == "compile" and not self.done:
            self.done = True
            self.act()

    def advanced(self, name, detail, fraction):
        """Nothing."""

    def finished(self, record):
        """Nothing."""


def test_the_tree_is_the_one_that_a_single_process_builds(model, alone, tmp_path):
    with recording() as records:
        tree = model.with_jobs(3).build_all(tmp_path / "tree")
    tree.check()
    assert tree.manifest.components == alone.manifest.components
    assert tree.component("decode").outside
    assert tree.manifest.library == alone.manifest.library
    assert tree.manifest.settings == alone.manifest.settings
    for name, record in tree.manifest.files.items():
        assert record.bytes == alone.manifest.files[name].bytes, name
        if not name.endswith(".engine"):
            assert record == alone.manifest.files[name], name
    made = [record for record in records if record.name == "compile"]
    assert sorted(record.detail for record in made) == ["decode", "llm", "vision"]
    assert len({record.process for record in made}) == 3 and os.getpid() not in {record.process for record in made}
    assert all(record.seconds > 0 and record.peak_bytes > 10**8 for record in made)
    assert [stage["name"] for stage in tree.manifest.stages].count("compile") == 3
    assert workers() == []


def test_fewer_processes_than_engines_take_the_longest_first(model, tmp_path):
    began = []
    ear = AtStart(lambda: None)
    ear.started = lambda name, detail: began.append(detail) if name == "compile" else None
    with listening(ear), recording() as records:
        model.with_jobs(2).build_all(tmp_path / "tree").check()
    assert sorted(began[:2]) == ["decode", "vision"] and began[2] == "llm"
    assert len({record.process for record in records if record.name == "compile"}) == 2


def test_what_an_old_tree_has_is_not_compiled_again(model, tmp_path):
    model.with_jobs(2).build_all(tmp_path / "tree")
    with recording() as records:
        model.with_jobs(3).build_all(tmp_path / "tree")
    assert [record.name for record in records].count("reuse") == 3
    assert not [record for record in records if record.name == "compile"]


def test_one_engine_alone_needs_no_other_process(model, tmp_path):
    model.with_jobs(1).build_all(tmp_path / "tree")
    with recording() as records:
        model.with_vision_batch(3).with_jobs(3).build_all(tmp_path / "tree")
    assert [record.detail for record in records if record.name == "reuse"] == ["llm", "decode"]
    assert [record.process for record in records if record.name == "compile"] == [os.getpid()]


def test_processes_hold_the_lock_have_an_allocator_and_hear_no_ctrl_c(model, tmp_path, monkeypatch):
    seen = []

    def look():
        for child in workers():
            files = [os.readlink(entry) for entry in Path("/proc", str(child), "fd").iterdir()]
            allocator = b"MARK=allocator" in Path("/proc", str(child), "environ").read_bytes().split(b"\0")
            seen.append((str(tmp_path / ".tree.lock") in files, allocator, os.getpgid(child) != os.getpgid(0)))

    monkeypatch.setattr(
        "ditto.builders.workers.with_allocator", lambda environment: {**environment, "MARK": "allocator"}
    )
    with listening(AtStart(look)):
        model.with_jobs(2).build_all(tmp_path / "tree")
    assert seen == [(True, True, True)] * 2


def test_an_error_is_the_one_of_a_single_process(model, tmp_path):
    """Whichever engine fails first."""
    nothing = TensorRTConfig(builder_config=TensorRTBuilderConfig(workspace_bytes=0))
    told = set()
    for jobs in (1, 2):
        with pytest.raises(BuildError, match="could not build the .* workspace memory") as caught:
            model.with_tensorrt(nothing).with_jobs(jobs).build_all(tmp_path / "tree")
        cause = re.sub("the (vision|llm|decode) engine", "the engine", caught.value.cause)
        told.add((type(caught.value), cause, caught.value.where, caught.value.remedy))
    assert len(told) == 1
    assert list(tmp_path.iterdir()) == []
    assert workers() == []


def test_a_full_disk_is_named(model, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    begun = AtStart(
        lambda: [resource.prlimit(child, resource.RLIMIT_FSIZE, (1 << 16, limits[1])) for child in workers()]
    )
    with listening(begun), pytest.raises(OutputError, match="a file grew larger than is allowed here"):
        model.with_jobs(2).build_all(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_killed_is_named(model, tmp_path):
    killer = AtStart(lambda: [os.kill(child, signal.SIGKILL) for child in workers()])
    with listening(killer), pytest.raises(BuildError) as caught:
        model.with_jobs(2).build_all(tmp_path / "tree")
    assert caught.value.cause in {
        f"the process that compiled the {name} engine was ended by SIGKILL" for name in ("decode", "vision")
    }
    assert "--jobs 1" in caught.value.remedy and "memory" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []
    assert workers() == []


def test_a_fault_of_ours_is_told_whole(model, tmp_path, monkeypatch):
    monkeypatch.setattr("ditto.targets.order.Order.text", lambda order: '{"component": "none"}')
    with pytest.raises(RuntimeError, match=r"(?s)the \w+ engine could not be compiled:.*Traceback.*Order"):
        model.with_jobs(2).build_all(tmp_path / "tree")
    assert workers() == []


def test_a_process_that_does_not_begin_is_named(model, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", shutil.which("false"))
    with pytest.raises(BuildError, match="the process that compiled the decode engine ended with exit code 1"):
        model.with_jobs(2).build_all(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_log_lines_come_where_they_are_wanted(model, tmp_path):
    lines = []
    sink = logger.add(lines.append, level="DEBUG", format="{message}")
    logger.enable("ditto")
    try:
        model.with_jobs(2).build_all(tmp_path / "tree")
    finally:
        logger.disable("ditto")
        logger.remove(sink)
    assert "decode, vision, llm compile side by side\n" in lines
    assert len([line for line in lines if line.startswith("TensorRT debug: ")]) > 100
    assert [line for line in lines if line.startswith("compile decode: ")]


def test_nothing_to_compile_begins_nothing():
    assert compile_side_by_side([], 2) == {}
    assert workers() == []


def command(saved, out):
    line = [sys.executable, "-m", "ditto", "-q", "build", str(saved), "-o", str(out), "--target", "tensorrt-rtx"]
    return [*line, "--weights", "outside", "--jobs", "2"]


def _hears_ctrl_c():
    """Begin as from a terminal: what a shell begins in the background ignores the signal, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def building(saved, tmp_path):
    """A build whose engines are being compiled, and the processes that do."""
    line = command(saved, tmp_path / "tree")
    build = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, preexec_fn=_hears_ctrl_c)
    found = within(60, lambda: len(workers(build.pid)) == 2 and workers(build.pid))
    assert found
    yield build, found
    build.kill()
    build.communicate()


def compiling(folder):
    """TensorRT is at work."""
    return within(60, lambda: list(folder.glob(".tree.partial/**/*.engine")))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("busy", [False, True])
def test_a_signal_ends_all(building, tmp_path, number, busy):
    build, found = building
    assert not busy or compiling(tmp_path)
    build.send_signal(number)
    _, told = build.communicate(timeout=20)
    assert build.returncode == 128 + number
    assert told == f"error: ended by {number.name}; nothing was written\n"
    assert not any(runs(child) for child in found)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("busy", [False, True])
def test_processes_end_with_the_one_they_work_for(building, saved, tmp_path, busy):
    build, found = building
    assert not busy or compiling(tmp_path)
    build.kill()
    build.wait()
    assert within(3, lambda: not any(runs(child) for child in found))
    assert subprocess.run(command(saved, tmp_path / "tree")).returncode == 0
    EngineTree.open(tmp_path / "tree").check()
    assert [entry.name for entry in tmp_path.iterdir()] == ["tree"]


def build(model, out):
    model.with_jobs(2).build_all(out)


@pytest.mark.slow
def test_kill_9_at_random_moments(model, alone, tmp_path):
    """The old tree stays whole, and the next build begins at once."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    start = time.perf_counter()
    assert in_child(partial(build, model, tmp_path / "timed")) == 0
    seconds = time.perf_counter() - start
    for number in range(8):
        out = tmp_path / str(number) / "tree"
        shutil.copytree(alone.root, out)
        other = model.with_max_seq_len(32)
        code = in_child(partial(build, other, out), kill_after=chance.uniform(0.1, 1.1) * seconds)
        assert code in (-signal.SIGKILL, 0)
        tree = EngineTree.open(out)
        tree.check()
        assert tree.config("llm")["build_config"]["max_seq_len"] in (32, 64)
        assert in_child(partial(build, model, out)) == 0
        EngineTree.open(out).check()
        assert list(out.parent.iterdir()) == [out]
