"""Faults of disks, checkpoints and trees: one message in up to three lines, an exit code, and nothing lost."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import time
from functools import partial

import pytest
from safetensors.torch import load_file, save_file

from ditto import EngineTree
from ditto.cli.main import main
from ditto.engine import staged
from tests.support.forks import in_child
from tests.support.models import llama

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny Llama in two shards."""
    directory = tmp_path_factory.mktemp("faults") / "model"
    llama().save_pretrained(directory)
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = names[: len(names) // 2], names[len(names) // 2 :]
    for shard, part in zip(SHARDS, parts):
        save_file({name: tensors[name] for name in part}, directory / shard, {"format": "pt"})
    weight_map = {name: shard for shard, part in zip(SHARDS, parts) for name in part}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return directory


@pytest.fixture
def model(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture(scope="module")
def built(saved):
    """Its tree."""
    assert run(build_command(saved, saved.parent / "tree")) == 0
    return saved.parent / "tree"


def build_command(model, out, *options):
    return ["-q", "build", str(model), "-o", str(out), "--target", "tensorrt-rtx", *options]


def run(arguments):
    return main([str(argument) for argument in arguments])


def told(capsys):
    """The one message on stderr."""
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert shown.out == ""
    assert lines and lines[0].startswith("error: "), shown.err
    assert len(lines) <= 3 and all(line.startswith(("error: ", "   at: ", " hint: ")) for line in lines), shown.err
    return "\n".join(lines)


def change_tensors(model, change, shard=SHARDS[0]):
    tensors = load_file(model / shard)
    change(tensors)
    save_file(tensors, model / shard, {"format": "pt"})


def change_index(model, change):
    path = model / "model.safetensors.index.json"
    data = json.loads(path.read_text())
    change(data["weight_map"])
    path.write_text(json.dumps(data))


def change_config(**values):
    def change(model):
        path = model / "config.json"
        data = {**json.loads(path.read_text()), **values}
        path.write_text(json.dumps({key: value for key, value in data.items() if value != "left out"}))

    return change


def truncate(model):
    path = model / SHARDS[1]
    path.write_bytes(path.read_bytes()[:-100])


def lengthen(model):
    path = model / SHARDS[1]
    path.write_bytes(path.read_bytes() + b"x")


def swap_name(model):
    """One bit of the header: the name of a tensor."""
    path = model / SHARDS[0]
    path.write_bytes(path.read_bytes().replace(b"embed_tokens", b"embed_tokenr", 1))


EMBEDDING = "model.embed_tokens.weight"
BAD_CHECKPOINTS = {
    "a truncated shard": (truncate, "lies beyond the end of the file: it is truncated"),
    "a shard with more at its end": (lengthen, "do not lie one after another up to its end"),
    "an empty shard": (lambda model: (model / SHARDS[0]).write_bytes(b""), "ends within its first 8 bytes"),
    "a flipped bit in a header": (swap_name, "that no shard holds"),
    "a missing shard": (lambda model: (model / SHARDS[1]).unlink(), f"names the shard {SHARDS[1]}, which is not there"),
    "an index without a tensor's shard": (
        lambda model: change_index(model, lambda names: names.update({"lm_head.bias": SHARDS[0]})),
        "the index names 1 tensors that no shard holds",
    ),
    "a shard twice under two names": (
        lambda model: (
            shutil.copy(model / SHARDS[0], model / "again.safetensors"),
            change_index(model, lambda names: names.update({EMBEDDING: "again.safetensors"})),
        ),
        "is in two shards",
    ),
    "a mis-shaped tensor": (
        lambda model: change_tensors(model, lambda held: held.update({EMBEDDING: held[EMBEDDING][:, :-1].clone()})),
        f"tensor `{EMBEDDING}` has shape [128, 63], the model's",
    ),
    "a missing tensor": (
        lambda model: (
            change_tensors(model, lambda held: held.pop(EMBEDDING)),
            change_index(model, lambda names: names.pop(EMBEDDING)),
        ),
        "1 parameters of LlamaForCausalLM have no tensor",
    ),
    "a config.json that is none": (lambda model: (model / "config.json").write_text("{"), "cannot read the conf"),
    "a config.json that is a list": (lambda model: (model / "config.json").write_text("[]"), "cannot read the conf"),
    "bytes for a config.json": (lambda model: (model / "config.json").write_bytes(b"\xff\xfe\0"), "cannot read the"),
    "no model type": (change_config(model_type="left out"), "cannot read the configuration"),
    "a model type that is none": (change_config(model_type=7), "cannot read the configuration"),
    "a size of a wrong type": (change_config(hidden_size="large"), "hidden_size"),
    "another size": (change_config(hidden_size=128), "has shape"),
    "a size of nothing": (change_config(num_hidden_layers=0), "`num_hidden_layers` is 0"),
    "an absurd size": (change_config(num_hidden_layers=10**9), "`num_hidden_layers` is 1000000000"),
    "more layers than there are": (change_config(num_hidden_layers=3), "have no tensor"),
    "heads that do not divide": (change_config(num_attention_heads=7), ""),
    "an activation that is none": (change_config(hidden_act="magic"), "magic"),
    "damaged generation defaults": (
        lambda model: (model / "generation_config.json").write_text("{"),
        "cannot read the generation defaults",
    ),
}


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_a_damaged_checkpoint_gets_one_message(model, tmp_path, capsys, name):
    damage, message = BAD_CHECKPOINTS[name]
    damage(model)
    assert run(build_command(model, tmp_path / "tree")) in (1, 2)
    assert message in told(capsys)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model"]


def test_any_flipped_bit_of_a_header_is_refused_or_harmless(model):
    from ditto.checkpoint import CheckpointIndex
    from ditto.errors import CheckpointError

    path = model / SHARDS[0]
    good = path.read_bytes()
    (length,) = struct.unpack("<Q", good[:8])
    shapes = {name: (record.shape, record.dtype) for name, record in CheckpointIndex.open(model).tensors.items()}
    chance, refused = random.Random(7), 0
    for _ in range(400):
        place, bit = chance.randrange(8 + length), chance.randrange(8)
        path.write_bytes(good[:place] + bytes([good[place] ^ 1 << bit]) + good[place + 1 :])
        try:
            found = CheckpointIndex.open(model).tensors
        except CheckpointError:
            refused += 1
        else:
            assert {name: (record.shape, record.dtype) for name, record in found.items()} == shapes
    assert refused > 300


def test_an_extra_shard_is_not_read(model, tmp_path):
    save_file({"model.norm.weight": load_file(model / SHARDS[0])[EMBEDDING]}, model / "extra.safetensors")
    assert run(build_command(model, tmp_path / "tree")) == 0
    assert EngineTree.open(tmp_path / "tree").manifest.unused == []


TREE_FILES = ("ditto.json", "config.json", "rank0.engine", "network.json", "network.safetensors")


@pytest.mark.parametrize("name", TREE_FILES)
def test_one_changed_byte_in_a_tree_is_caught_before_it_is_run(built, tmp_path, capsys, name):
    tree = shutil.copytree(built, tmp_path / "tree")
    good = (tree / name).read_bytes()
    chance = random.Random(name)
    for place in [0, len(good) - 1, *(chance.randrange(len(good)) for _ in range(40))]:
        (tree / name).write_bytes(good[:place] + bytes([good[place] ^ 1 << chance.randrange(8)]) + good[place + 1 :])
        assert run(["-q", "run", tree, "--prompt", "x"]) == 2
        assert name in told(capsys)
    (tree / name).write_bytes(good)
    EngineTree.open(tree).check()


def test_a_large_file_is_hashed_when_it_is_asked_for(built, tmp_path, monkeypatch):
    from ditto.engine import tree as module
    from ditto.errors import TreeError

    monkeypatch.setattr(module, "PIECE_BYTES", 1 << 20)
    tree = EngineTree.open(shutil.copytree(built, tmp_path / "tree"))
    engine = tree.checked("llm", "rank0.engine")
    data = bytearray(engine.read_bytes())
    assert len(data) > module.PIECE_BYTES
    data[-1] ^= 1
    engine.write_bytes(data)
    again = EngineTree.open(tree.root)
    with pytest.raises(TreeError, match=r"rank0.engine has changed"):
        again.checked("llm", "rank0.engine")


@pytest.fixture(params=["full", "read-only"])
def small_disk(request, tmp_path):
    """A disk of 2 MB, or one that cannot be written; for others than root, what comes nearest."""
    disk = tmp_path / "disk"
    disk.mkdir()
    kind = request.param
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True).returncode == 0
    )
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if mounted and kind == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    elif not mounted and kind == "read-only":
        disk.chmod(0o500)
    elif not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, limits[1]))
    yield disk, kind
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    if mounted:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_disk_that_takes_nothing_more_is_named(saved, small_disk, capsys, monkeypatch):
    monkeypatch.setattr(
        "ditto.builders.plan.check_resources", lambda *needs: None
    )  # the room goes while the build runs
    disk, kind = small_disk
    assert run(build_command(saved, disk / "tree")) == 2
    message = told(capsys)
    assert "the output directory cannot be written: " in message
    reasons = {"full": ("the disk is full", "a file grew larger"), "read-only": ("the disk is read-only", "Permission")}
    assert any(reason in message for reason in reasons[kind])
    assert list(disk.iterdir()) == []


def test_a_second_builder_of_a_tree_is_refused(saved, built, tmp_path, capsys):
    out = shutil.copytree(built, tmp_path / "tree")
    with pytest.raises(ZeroDivisionError), staged(out):
        assert run(build_command(saved, out)) == 2
        assert "this tree is being built right now" in told(capsys)
        raise ZeroDivisionError
    EngineTree.open(out).check()
    assert list(tmp_path.iterdir()) == [out]


def test_paths_may_hold_anything_and_out_may_be_a_link(saved, tmp_path):
    model = shutil.copytree(saved, tmp_path / "ein Modell: 模型 'ü' $x")
    real = tmp_path / "Bäume & more" / "árbol 1"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    assert run(build_command(model, tmp_path / "link")) == 0
    assert (tmp_path / "link").is_symlink()
    EngineTree.open(real).check()
    assert [entry.name for entry in real.parent.iterdir()] == [real.name]


def quietly(arguments):
    """A command, to be run in a fork."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return run(arguments)


@pytest.mark.parametrize("moments", [4, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("old", [False, True], ids=["build", "rebuild"])
def test_kill_9_at_random_moments(saved, built, tmp_path, old, moments):
    """The next run's success is shown each time by a build that takes over what it can."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    start = time.perf_counter()
    assert in_child(partial(quietly, build_command(saved, tmp_path / "timed"))) == 0
    seconds = time.perf_counter() - start
    for number in range(moments):
        out = tmp_path / str(number) / "tree"
        out.parent.mkdir()
        if old:
            shutil.copytree(built, out)
        other = partial(quietly, build_command(saved, out, "--batch", "2"))
        code = in_child(other, kill_after=chance.uniform(0, 1.1 * seconds))
        assert code in (-signal.SIGKILL, 0)
        if old or out.exists():
            tree = EngineTree.open(out)
            tree.check()
            assert tree.config("llm")["build_config"]["max_batch_size"] in (1, 2)
        assert in_child(partial(quietly, build_command(saved, out))) == 0
        EngineTree.open(out).check()
        assert list(out.parent.iterdir()) == [out]
        shutil.rmtree(out.parent)
