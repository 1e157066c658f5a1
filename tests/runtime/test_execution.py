"""The calls of an execution compute what PyTorch computes, in memory that later calls use again."""

from __future__ import annotations

import gc
import itertools
import re
import shutil
import weakref
from types import SimpleNamespace

import pytest
import torch
from attrs import evolve, frozen
from torch import nn
from torch.testing import assert_close

from ditto import EngineTree, LlmBuilder
from ditto.arguments import DynamicDimension
from ditto.engine import Phase, Profile, record_files, write_manifest
from ditto.errors import DeviceError, TreeError
from ditto.network import Network
from ditto.passes import SIMPLIFY, run_passes
from ditto.reference import Constants
from ditto.runtime import execution
from ditto.runtime.activation_arena import ALIGNMENT, aligned
from ditto.runtime.execution import Parts
from ditto.runtime.runtime_cache import RuntimeCache
from tests.support.blocks import WIDTH, Block, Chain, Towered, blocks
from tests.support.engines import CpuContext, CpuEngine
from tests.support.lowering import ModuleTensors, lowered
from tests.support.models import llama
from tests.support.parts import as_a_whole, in_embedded_blocks, in_shared_blocks, weights_by_value

FEW, MANY = (Profile(Phase.ENCODE, {"batch": DynamicDimension("batch", *sizes)}) for sizes in ((1, 2, 4), (4, 8, 64)))
PROFILES = (FEW, MANY)
WORK = 1000


@pytest.fixture(autouse=True)
def a_gpu(monkeypatch):
    """Memory counts as a GPU's; numbers are the same in every run."""
    torch.manual_seed(0)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)


@frozen
class Loaded:
    """A module's network on engines of the CPU."""

    module: nn.Module
    network: Network
    parts: Parts
    schedule: object
    weights: dict[str, torch.Tensor]
    log: list[CpuContext]

    def memory(self):
        """As much as it works in, with room behind that is not to be used."""
        return torch.zeros(self.parts.scratch_bytes + (1 << 16), dtype=torch.uint8)[: self.parts.scratch_bytes]

    def execution(self, profile=0, scratch=None):
        """A way to run it, its weights bound."""
        made = self.parts.execution(profile, self.memory() if scratch is None else scratch, eager=True)
        made.bind(self.weights)
        return made


def loaded(module, divide=lambda network: in_shared_blocks(network, 1), scratch=(WORK, 10, 500)):
    """A module of x [batch, WIDTH]."""
    network = run_passes(lowered(module, {"x": torch.randn(3, WIDTH)}, {"x": "batch"}), SIMPLIFY)
    made, stored, constants = divide(network), weights_by_value(network), Constants(network, ModuleTensors(module))
    log: list[CpuContext] = []
    engines = [
        CpuEngine(part, constants, PROFILES, bytes_, log)
        for part, bytes_ in zip(made.networks, itertools.cycle(scratch), strict=False)
    ]
    weights = {name: constants[stored[value]].clone() for name, value in made.external.items()}
    parts = Parts(engines, made.schedule, network.inputs, PROFILES, RuntimeCache(None))
    return Loaded(module, network, parts, made.schedule, weights, log)


@pytest.fixture
def chain():
    """A chain of four blocks, in three parts."""
    return loaded(Chain(*blocks(2.0, 2.0, 2.0, 2.0)))


def run(made, x, out=None):
    """What an execution makes of x, in new memory."""
    out = torch.full((len(x), 2), float("nan")) if out is None else out
    made.bind({"x": x, "result": out})
    made.enqueue()
    return out


def wanted(module, x):
    """What PyTorch makes of x."""
    with torch.no_grad():
        return module(x)


MODULES = {
    "blocks": lambda: Chain(*blocks(2.0, 2.0, 2.0, 2.0)),
    "nothing but blocks": lambda: nn.Sequential(*(Block() for _ in range(3))),
    "features of the first block, too": lambda: Towered((-1, 1), *blocks(2.0, 2.0, 2.0)),
    "blocks of two by turns": lambda: Chain(*blocks(2.0, 3.0, 2.0, 3.0)),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize(
    "divide",
    [lambda network: in_shared_blocks(network, 1), in_embedded_blocks, as_a_whole],
    ids=["in parts", "in blocks", "whole"],
)
def test_calls_compute_what_pytorch_computes(name, divide):
    made = loaded(MODULES[name](), divide)
    x = torch.randn(3, WIDTH)
    found = torch.full(tuple(wanted(made.module, x).shape), float("nan"))
    assert_close(run(made.execution(), x, found), wanted(made.module, x))


def test_a_new_batch_is_laid_out_anew(chain):
    made = chain.execution()
    for rows in (2, 2, 4, 1, 3, 4):
        x = torch.randn(rows, WIDTH)
        assert_close(run(made, x), wanted(chain.module, x))


def test_calls_run_in_order_with_the_shapes_of_the_batch(chain):
    run(chain.execution(), torch.randn(3, WIDTH))
    assert [list(chain.parts._engines).index(done.engine) for done in chain.log] == [0, 1, 1, 1, 1, 2]
    for call, done in zip(chain.schedule.calls, chain.log, strict=True):
        state = [name for name, known in call.tensors.items() if known in {"x", *chain.schedule.between}]
        assert {done.shapes[name] for name in state if name in done.shapes} <= {(3, WIDTH), (3, WIDTH + 1)}
        assert any(name in done.shapes for name in state)


def test_each_call_has_the_weights_of_its_own_block(chain):
    run(chain.execution(), torch.randn(3, WIDTH))
    for number, done in enumerate(chain.log[1:-1]):
        for name in ("linear.weight", "scale"):
            weight = chain.weights[f"blocks.{number}.{name}"]
            assert done.addresses[f"blocks.0.{name}"] == weight.data_ptr()
            assert done.shapes[f"blocks.0.{name}"] == tuple(weight.shape)


def test_what_is_handed_on_lies_behind_what_engines_work_in(chain):
    scratch = chain.memory()
    run(chain.execution(0, scratch), torch.randn(3, WIDTH))
    start, stop = scratch.data_ptr() + aligned(WORK), scratch.data_ptr() + scratch.numel()
    for call, done in zip(chain.schedule.calls, chain.log, strict=True):
        handed = [done.addresses[name] for name, whole in call.tensors.items() if whole in chain.schedule.between]
        assert handed
        assert all(start <= place < stop and (place - start) % ALIGNMENT == 0 for place in handed)
        assert (done.scratch.data_ptr(), done.scratch.numel()) == (scratch.data_ptr(), aligned(WORK))


def test_memory_is_that_of_the_hungriest_engine_and_the_largest_batch(chain):
    state = 64 * (WIDTH + 1) * 4
    assert chain.parts.scratch_bytes == aligned(WORK) + 2 * aligned(state)
    assert loaded(chain.module, as_a_whole, scratch=[WORK]).parts.scratch_bytes == aligned(WORK)


def test_nothing_is_written_behind_the_memory(chain):
    scratch = chain.memory()
    run(chain.execution(1, scratch), torch.randn(64, WIDTH))
    assert scratch._base[len(scratch) :].count_nonzero() == 0


def test_executions_that_take_turns_share_memory(chain):
    scratch = chain.memory()
    few, many = (chain.execution(profile, scratch) for profile in (0, 1))
    for _ in range(2):
        for made, rows in ((few, 2), (many, 64)):
            x = torch.randn(rows, WIDTH)
            assert_close(run(made, x), wanted(chain.module, x))
    assert [done.profile for done in chain.log] == [*[FEW] * 6, *[MANY] * 6] * 2


def test_what_is_bound_stays_until_something_else_is(chain):
    made, x, out = chain.execution(), torch.randn(2, WIDTH), torch.empty(2, 2)
    run(made, x, out)
    out.fill_(float("nan"))
    x.copy_(torch.randn(2, WIDTH))
    made.enqueue()
    assert_close(out, wanted(chain.module, x))
    other = {**chain.weights, "blocks.2.scale": chain.weights["blocks.2.scale"] * 3}
    made.bind(other)
    made.enqueue()
    with torch.no_grad():
        chain.module.blocks[2].scale.mul_(3)
    assert_close(out, wanted(chain.module, x))


def test_what_is_unbound_is_let_go_of(chain):
    made, x, out = chain.execution(), torch.randn(2, WIDTH), torch.empty(2, 2)
    run(made, x, out)
    gone = weakref.ref(x)
    del x
    assert gone() is not None
    made.unbind(["x", "never bound"])
    assert gone() is None
    other = torch.randn(2, WIDTH)
    run(made, other, out)
    assert_close(out, wanted(chain.module, other))


def test_a_shape_that_the_profile_does_not_take_is_an_error(chain):
    with pytest.raises(DeviceError, match=r"profile encode takes x from \[1, 4\] to \[4, 4\], not \[5, 4\]"):
        chain.execution(0).bind({"x": torch.randn(5, WIDTH)})


def test_only_contiguous_memory_on_the_gpu_is_bound(chain, monkeypatch):
    made = chain.execution()
    with pytest.raises(AssertionError, match="x"):
        made.bind({"x": torch.randn(WIDTH, 3).T})
    monkeypatch.setattr(torch.Tensor, "is_cuda", False, raising=False)
    with pytest.raises(AssertionError, match="x"):
        made.bind({"x": torch.randn(3, WIDTH)})


@pytest.fixture(scope="module")
def outside_tree(tmp_path_factory):
    """A tree whose engines take their weights as inputs; not to be changed."""
    builder = (
        LlmBuilder.from_model(llama(num_hidden_layers=3))
        .with_target("tensorrt-rtx")
        .with_optimize("latency")
        .with_tuning("9.0")
    )
    return builder.build(tmp_path_factory.mktemp("execution") / "tree")


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Engine files and their kernels, in the order in which they are loaded."""
    asked = []

    def engine(trt, path, kernels):
        asked.append((path.name, kernels))
        return SimpleNamespace(inputs=(), scratch_bytes=1)

    monkeypatch.setattr(execution, "Engine", engine)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU (80 GB)")
    monkeypatch.setenv("DITTO_CACHE", str(tmp_path / "cache"))
    return asked


# Stands in for `IRuntimeConfig`: what is compiled with it is in its cache.
COMPILED = SimpleNamespace(
    create_runtime_cache=lambda: SimpleNamespace(serialize=lambda: b"compiled"), set_runtime_cache=lambda cache: None
)


def test_every_part_is_loaded_with_the_same_kernels(outside_tree, opened, tmp_path):
    parts = Parts.of(outside_tree, "llm-decode", SimpleNamespace(), torch.device("cpu"))
    names, kernels = zip(*opened, strict=True)
    assert names == ("rank0.engine", "rank0.part1.engine", "rank0.part2.engine")
    assert len({id(each) for each in kernels}) == 1
    assert [call.part for call in parts._schedule.calls] == [0, 1, 1, 1, 2]
    kernels[0].give(COMPILED)
    kernels[0].meets("a shape")
    parts.keep_kernels()
    (file,) = (tmp_path / "cache" / "kernels").iterdir()
    assert file.read_bytes() == b"compiled"
    assert re.fullmatch(r"[0-9a-f]{32}-A-GPU-80-GB-\.bin", file.name)
    Parts.of(outside_tree, "llm", SimpleNamespace(), torch.device("cpu"))
    assert opened[-1][1]._path != file, "another component's kernels are others"


def test_what_is_compiled_after_the_last_batch_is_kept_at_the_end(outside_tree, opened, tmp_path):
    parts = Parts.of(outside_tree, "llm-decode", SimpleNamespace(), torch.device("cpu"))
    opened[0][1].give(COMPILED)
    del parts
    gc.collect()
    assert [file.read_bytes() for file in (tmp_path / "cache" / "kernels").iterdir()] == [b"compiled"]


def test_with_weights_inside_every_block_is_loaded_and_called_once(opened, tmp_path):
    tree = LlmBuilder.from_model(llama(num_hidden_layers=4)).with_target("tensorrt-rtx").build(tmp_path / "tree")
    parts = Parts.of(tree, "llm", SimpleNamespace(), torch.device("cpu"))
    names = [name for name, _ in opened]
    assert names == ["rank0.engine", *(f"rank0.part{number}.engine" for number in range(1, 5))]
    assert [call.part for call in parts._schedule.calls] == list(range(5))


@pytest.fixture
def copied(outside_tree, tmp_path):
    """The tree, free to be changed."""
    shutil.copytree(outside_tree.root, tmp_path / "tree")
    return EngineTree.open(tmp_path / "tree")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "decode/schedule.json is missing"),
        (lambda path: path.write_text("{}"), r"decode/schedule.json is not \d+ bytes long"),
        (lambda path: path.write_text(path.read_text()[::-1]), "decode/schedule.json has changed since it was built"),
    ],
    ids=["missing", "cut", "changed"],
)
def test_a_tree_whose_calls_are_not_those_that_were_built_is_refused(copied, damage, message):
    damage(copied.root / "llm-decode" / "schedule.json")
    with pytest.raises(TreeError, match=message):
        EngineTree.open(copied.root)


def test_calls_that_are_none_are_named(copied, opened):
    (copied.root / "llm-decode" / "schedule.json").write_text('{"format": 2, "between": {}, "calls": [{"part": 0}]}')
    write_manifest(evolve(copied.manifest, files=record_files(copied.root)), copied.root)
    with pytest.raises(TreeError, match=r"the file of calls is damaged: required field missing @ \$\.calls\[0\]"):
        Parts.of(EngineTree.open(copied.root), "llm-decode", SimpleNamespace(), torch.device("cpu"))


@pytest.mark.parametrize(("count", "first"), [(4, 0), (6, 1), (15, 2)])
def test_stages_are_the_calls_cut_once(count, first):
    made = loaded(Chain(*blocks(*[2.0] * count)))
    execution = made.execution()
    x, out = torch.randn(3, WIDTH), torch.empty(3, 2)
    execution.bind({"x": x, "result": out})
    begun = []
    for stage in execution.stages:
        stage()
        begun.append(len(made.log))
    assert begun == ([first] if first else []) + [count + 2]
    assert_close(out, wanted(made.module, x))
