"""Files that somebody else made, in every form that a damaged disk, a wrong tool or ill will could give them: each is
refused with one message and the right exit code, nothing hangs, nothing is followed, and nothing is lost."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import shutil
import signal
import struct

import pytest
from attrs import evolve

from ditto import EngineTree, LlmBuilder
from ditto.checkpoint import CheckpointIndex
from ditto.cli.main import main
from ditto.engine import record_files, write_manifest
from ditto.engine.manifest import read_manifest
from ditto.errors import CheckpointError, TreeError
from ditto.runtime import open_session
from tests.support.models import llama

SECONDS = 60


@pytest.fixture(autouse=True)
def no_hang():
    """Whatever waits for ever ends with an error."""

    def late(number, frame):
        raise TimeoutError(f"still running after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def everything(directory):
    """All that lies below a directory: names, kinds and contents."""
    return {
        path.relative_to(directory).as_posix(): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in directory.rglob("*")
    }


def refused(capsys, *arguments):
    """Run a command that must be refused; returns its one message."""
    capsys.readouterr()
    assert main(["-q", *map(str, arguments)]) in (1, 2)
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert [line[:7] for line in lines if not line.startswith(("   at: ", " hint: "))] == ["error: "], shown.err
    assert shown.out == ""
    return shown.err


# Manifests


def sealed(data, root):
    """Write a manifest as ill will would: with a right digest."""
    data = {"digest": "0" * 64, **{name: value for name, value in data.items() if name != "digest"}}
    text = json.dumps(data, ensure_ascii=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (root / "ditto.json").write_text(text.replace("0" * 64, digest, 1))


def leaves(value, path=()):
    """Places of a JSON value, inner ones too: of a list the first; of an object that is not a class of ours, two."""
    if path:
        yield path
    if isinstance(value, dict):
        is_map = path and path[-1] in (
            "files",
            "inputs",
            "outputs",
            "shared",
            "layers",
            "versions",
            "external_weights",
            "profiles",
        )
        for name in list(value)[: 2 if is_map else None]:
            yield from leaves(value[name], (*path, name))
    elif isinstance(value, list) and value:
        yield from leaves(value[0], (*path, 0))


def replaced(data, path, value):
    made = copy.deepcopy(data)
    place = made
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return made


def value_at(data, path):
    for step in path:
        data = data[step]
    return data


WRONG = [
    None,
    True,
    -1,
    2**31,
    10**400,
    2.5,
    "",
    "x",
    "/etc/passwd",
    "../../etc/passwd",
    "a/../../b",
    "nul\0",
    "n" * 5000,
    "\ud800",
    [],
    ["x"],
    [[]],
    {},
    {"x": 1},
]


# Keys of texts that are shown or compared, never acted on.
FREE_TEXT = ("weights", "name", "detail", "identity", "kind")


@pytest.fixture(scope="module")
def tree(llava_tree, tmp_path_factory):
    """A tree of two engines; its manifest may be changed."""
    root = tmp_path_factory.mktemp("hostile") / "tree"
    shutil.copytree(llava_tree.root, root)
    return root


@pytest.fixture(scope="module")
def stated(llava_tree):
    """Its manifest."""
    return json.loads((llava_tree.root / "ditto.json").read_text())


@pytest.mark.parametrize(
    "part",
    [
        *("target", "settings", "limits", "decoder", "generation", "checkpoint", "tokens", "components", "unused"),
        *("stages", "files"),
    ],
)
def test_a_manifest_with_any_value_replaced_is_refused_or_says_as_much(part, stated, tree, capsys):
    """Whatever is read back is harmless: free text, or numbers in their range."""
    places = [path for path in leaves(stated) if path[0] == part]
    accepted = []
    for path in places:
        for value in WRONG:
            if value is None and value_at(stated, path) is None:
                continue
            sealed(replaced(stated, path, value), tree)
            try:
                read_manifest(tree)
            except TreeError:
                continue
            accepted.append((path, value))
    for path, value in accepted:
        old = value_at(stated, path)
        assert type(value) is type(old) or value is None or old is None or path[-1] == "seconds", (path, value)
        assert not isinstance(value, str) or path[-1] in FREE_TEXT, (path, value)
        assert type(value) is not int or 0 <= value < 2**63 or path[1] in ("end", "pad"), (path, value)
        assert path[-1] not in ("directory", "dtype", "target", "sha256", "vocab_size"), (path, value)


def renamed(data, part, old, new):
    """A manifest in which a file of a component has another name everywhere."""
    made = copy.deepcopy(data)
    component = made["components"][part]
    component["engines"] = [[new if name == old else name for name in rank] for rank in component["engines"]]
    made["files"][f"{part}/{new}"] = made["files"].pop(f"{part}/{old}")
    return made


OUTSIDE = [
    "/etc/passwd",
    "../passwd",
    "../../../../etc/passwd",
    "llm/../../passwd",
    "..",
    ".",
    "",
    "/",
    "a//b",
    "./a",
    "a/",
]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("command", ["inspect", "compile", "run"])
def test_no_path_of_a_manifest_leads_out_of_its_tree(command, name, stated, tree, capsys):
    """The file is there, and of the recorded size and digest."""
    (tree.parent / "passwd").write_bytes((tree / "llm" / "rank0.engine").read_bytes())
    files = {**stated["files"], name: stated["files"]["llm/rank0.engine"]}
    options = ["--prompt", "x"] if command == "run" else []
    for changed in ({"files": files}, renamed(stated, "llm", "rank0.engine", name)):
        sealed({**stated, **changed}, tree)
        before = everything(tree.parent)
        assert "manifest" in refused(capsys, command, tree, *options)
        assert everything(tree.parent) == before


@pytest.mark.parametrize("directory", [name for name in OUTSIDE if name not in (".",)])
@pytest.mark.parametrize("key", ["directory", "weights"])
def test_no_component_lies_outside_of_its_tree(key, directory, stated, tree, capsys):
    components = copy.deepcopy(stated["components"])
    components["llm"][key] = directory
    sealed({**stated, "components": components}, tree)
    assert "the manifest is damaged" in refused(capsys, "inspect", tree)


@pytest.fixture
def own(llava_tree, tmp_path):
    """A copy of the tree for one test alone."""
    return EngineTree.open(shutil.copytree(llava_tree.root, tmp_path / "place" / "tree"))


@pytest.mark.parametrize("name", ["llm/rank0.engine", "llm", "processor", "ditto.json"])
def test_no_link_leads_out_of_a_tree(name, own, tmp_path, capsys):
    path, elsewhere = own.root / name, tmp_path / "elsewhere"
    if name == "processor":
        elsewhere.mkdir()
    else:
        path.rename(elsewhere)
    path.symlink_to(elsewhere)
    before = everything(tmp_path)
    for command in ("inspect", "compile", "run"):
        told = refused(capsys, command, own.root, *(["--prompt", "x"] if command == "run" else []))
        assert "leads out of the tree" in told
    assert everything(tmp_path) == before


def test_links_inside_a_tree_and_a_link_to_it_are_followed(own, tmp_path):
    path = own.root / "llm" / "rank0.engine"
    path.rename(own.root / "moved")
    path.symlink_to("../moved")
    (tmp_path / "link").symlink_to(own.root)
    EngineTree.open(tmp_path / "link").check()


def test_one_engine_of_two_may_not_lie_elsewhere(own, tmp_path, capsys):
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair" / "llm").symlink_to(own.root)
    assert "leads out of the tree" in refused(capsys, "inspect", tmp_path / "pair")


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


def make_device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def make_loop(path):
    path.unlink()
    path.symlink_to(path.name)


def make_directory(path):
    path.unlink()
    path.mkdir()


def make_sparse(path):
    with path.open("r+b") as file:
        file.truncate(1 << 42)


KINDS = [make_pipe, make_device, make_loop, make_directory, make_sparse]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(
    "name",
    [
        "ditto.json",
        "llm/config.json",
        "llm/schedule.json",
        "llm/network.json",
        "llm/network.safetensors",
        "llm/weights.safetensors",
        "llm/rank0.engine",
    ],
)
def test_what_is_not_a_regular_file_is_not_read(name, make, own, capsys):
    make(own.root / name)
    for command in ("inspect", "compile", "run"):
        refused(capsys, command, own.root, *(["--prompt", "x"] if command == "run" else []))


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "hf_quant_config.json"])
def test_a_checkpoint_of_such_files_is_not_read(name, make, tmp_path, capsys):
    llama().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / name).touch()
    make(tmp_path / "model" / name)
    if name == "hf_quant_config.json":  # it may be there and say nothing
        assert main(["-q", "plan", str(tmp_path / "model"), "--target", "trtllm"]) in (0, 2)
        return
    for command, *options in (["plan"], ["build", "-o", tmp_path / "tree"]):
        refused(capsys, command, tmp_path / "model", "--target", "trtllm", *options)
    assert not (tmp_path / "tree").exists()


# Files that weights are in


def shard(header, data=b"", length=None):
    """A safetensors file as stated."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


SHARDS = {
    "nothing": b"",
    "half a length": b"\x08\0\0",
    "a length and no header": struct.pack("<Q", 100),
    "a header of 2^64 bytes": shard({}, length=2**64 - 1),
    "a header longer than the file": shard({"a": entry()}, b"\0" * 8, length=1000),
    "a header cut short": shard({"a": entry()}, b"\0" * 8, length=10),
    "no JSON": shard(b"{{{{"),
    "no UTF-8": shard(b'{"\xff": 1}'),
    "a list": shard([]),
    "deep nesting": shard(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "NaN": shard(b'{"a": NaN}'),
    "a name twice": shard(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b"\0" * 8,
    ),
    "an entry that is a number": shard({"a": 7}),
    "an entry without dtype": shard({"a": {"shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8),
    "an unknown dtype": shard({"a": entry("F7")}, b"\0" * 8),
    "a dtype that is a list": shard({"a": {**entry(), "dtype": ["F32"]}}, b"\0" * 8),
    "a dtype of another size": shard({"a": entry("F64")}, b"\0" * 8),
    "a negative size": shard({"a": entry(shape=(-1, -2))}, b"\0" * 8),
    "a size of text": shard({"a": entry(shape=("2",))}, b"\0" * 8),
    "a size of a fraction": shard({"a": entry(shape=(2.0,))}, b"\0" * 8),
    "a huge size": shard({"a": entry(shape=(2**62, 2**62))}, b"\0" * 8),
    "a shape that is a number": shard({"a": {**entry(), "shape": 2}}, b"\0" * 8),
    "offsets in reverse": shard({"a": entry(offsets=(8, 0))}, b"\0" * 8),
    "negative offsets": shard({"a": entry(offsets=(-8, 0))}, b"\0" * 8),
    "three offsets": shard({"a": entry(offsets=(0, 4, 8))}, b"\0" * 8),
    "tensors that overlap": shard({"a": entry(), "b": entry(offsets=(4, 12))}, b"\0" * 12),
    "a gap": shard({"a": entry(), "b": entry(offsets=(12, 20))}, b"\0" * 20),
    "less data than stated": shard({"a": entry()}, b"\0" * 7),
    "more data than stated": shard({"a": entry()}, b"\0" * 9),
}


@pytest.mark.parametrize("name", SHARDS)
def test_a_damaged_shard_is_refused(name, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(SHARDS[name])
    with pytest.raises(CheckpointError):
        CheckpointIndex.open(tmp_path)


def test_tensors_of_no_size_are_read(tmp_path):
    header = {"__metadata__": {"format": "pt"}, "a": entry(shape=(0, 3), offsets=(0, 0)), "b": entry(shape=())}
    header["b"]["data_offsets"] = [0, 4]
    (tmp_path / "model.safetensors").write_bytes(shard(header, b"\0" * 4))
    assert {name: record.shape for name, record in CheckpointIndex.open(tmp_path).tensors.items()} == {
        "a": (0, 3),
        "b": (),
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A checkpoint; a test changes one of its files and puts it back."""
    directory = tmp_path_factory.mktemp("hostile") / "model"
    llama().save_pretrained(directory)
    return directory


@pytest.fixture
def changed(model):
    """Replace a file of the checkpoint for one test."""
    before = {path: path.read_bytes() for path in model.iterdir()}

    def change(name, content):
        (model / name).write_bytes(content)
        return model

    yield change
    for path in model.iterdir():
        path.write_bytes(before[path]) if path in before else path.unlink()


@pytest.mark.parametrize("name", ["nothing", "a header of 2^64 bytes", "deep nesting", "a name twice"])
def test_a_build_of_a_damaged_shard_writes_nothing(name, changed, tmp_path, capsys):
    model = changed("model.safetensors", SHARDS[name])
    assert "the shard is damaged" in refused(
        capsys, "build", model, "-o", tmp_path / "new" / "tree", "--target", "trtllm"
    )
    assert list(tmp_path.iterdir()) == []


CONFIGS = [b"", b"null", b"[]", b"7", b'"x"', b"{}", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"\0" * 100]


@pytest.mark.parametrize("content", CONFIGS, ids=range(len(CONFIGS)))
def test_a_configuration_of_another_form_is_refused(content, changed, capsys):
    refused(capsys, "plan", changed("config.json", content), "--target", "trtllm")


@pytest.mark.parametrize("key", ["hidden_size", "vocab_size", "model_type", "max_position_embeddings"])
def test_a_configuration_with_a_value_replaced_is_refused_or_planned(key, model, changed, capsys):
    stated = json.loads((model / "config.json").read_text())
    for value in (None, -1, 2**70, 10**400, 2.5, "x", [], {}):
        path = changed("config.json", json.dumps({**stated, key: value}).encode())
        capsys.readouterr()
        code = main(["-q", "plan", str(path), "--target", "trtllm"])
        shown = capsys.readouterr()
        assert code == 0 or code == 1 or shown.err.count("error: ") == 1, (value, shown.err)


@pytest.mark.parametrize("content", [*CONFIGS, b'{"weight_map": 7}', b'{"weight_map": {"a": "../b"}}'])
def test_an_index_of_another_form_is_refused(content, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(CheckpointError):
        CheckpointIndex.open(tmp_path)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A tree for TensorRT-LLM; its config.json may be changed."""
    return LlmBuilder.from_model(llama()).with_target("trtllm").build(tmp_path_factory.mktemp("hostile") / "packed")


@pytest.mark.parametrize("part", ["pretrained_config", "build_config"])
def test_a_tree_with_any_value_of_its_configuration_replaced_is_refused_or_runs(part, packed):
    """As ill will would change it: the manifest has the changed file's size and digest."""
    path = packed.root / "config.json"
    before = path.read_bytes()
    stated = json.loads(before)
    try:
        for place in leaves(stated):
            for value in (None, True, -1, 2.5, "", "x", [], {}) if place[0] == part else ():
                path.write_text(json.dumps(replaced(stated, place, value)))
                write_manifest(evolve(packed.manifest, files=record_files(packed.root)), packed.root)
                with contextlib.suppress(TreeError):
                    open_session(EngineTree.open(packed.root), "reference").start(1).close()
    finally:
        path.write_bytes(before)
