"""Networks on disk come back as they were; damaged files are refused in one error that names the file."""

from __future__ import annotations

import json
import re

import pytest
import torch
from attrs import frozen
from safetensors.torch import load_file, save_file

from ditto.errors import TreeError
from ditto.network import Network, layers, load, network_text, save
from ditto.network.files import FORMAT
from ditto.network.quantized import QuantizedWeight
from ditto.network.spec import Spec
from ditto.network.weight import Folded, Literal, Stored, leaves
from ditto.reference import Constants, run
from tests.support.networks import every_layer_network


@pytest.fixture
def files(tmp_path):
    """The paths of a network's two files."""
    return tmp_path / "network.json", tmp_path / "network.safetensors"


@pytest.fixture(scope="module")
def whole_saved(tmp_path_factory):
    """The content of a whole network's two files."""
    directory = tmp_path_factory.mktemp("saved")
    paths = directory / "network.json", directory / "network.safetensors"
    save(every_layer_network()[0], *paths)
    return [path.read_bytes() for path in paths]


@pytest.fixture
def saved(files, whole_saved):
    """A whole network's two files, to be damaged."""
    for path, content in zip(files, whole_saved):
        path.write_bytes(content)
    return files


def test_a_network_comes_back_as_it_was(files):
    network, inputs, source = every_layer_network()
    weights = [constant.weight for constant in network.constants()]
    assert {type(weight) for weight in weights} == {Stored, Literal, Folded, QuantizedWeight}
    assert any(isinstance(weight.operands[0], Folded) for weight in weights if isinstance(weight, Folded))
    assert {type(node.layer).__name__ for node in network.nodes} == set(layers.__all__)
    save(network, *files)
    loaded = load(*files)
    assert network_text(loaded) == network_text(network)
    assert (loaded.name, loaded.inputs, loaded.nodes) == (network.name, network.inputs, network.nodes)
    assert (list(loaded.outputs.items()), loaded.shared) == (list(network.outputs.items()), network.shared)
    found, wanted = (run(net, inputs, Constants(net, source)) for net in (loaded, network))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_saving_what_was_loaded_changes_no_byte(saved, tmp_path):
    again = tmp_path / "again.json", tmp_path / "again.safetensors"
    save(load(*saved), *again)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in saved]


def test_a_loaded_network_can_be_added_to(saved):
    loaded = load(*saved)
    names = {name for node in loaded.nodes for name in node.outputs}
    first = loaded.nodes[2]
    values = [loaded.value(name) for name in first.inputs]
    again = loaded.add(first.layer, *values)
    assert again.name not in names and again.spec == loaded.value(first.outputs[0]).spec
    assert loaded.add(layers.Identity(), values[0]).name not in names


def test_layers_defined_after_a_file_was_written_are_known(files):
    save(every_layer_network()[0], *files)

    @frozen
    class Later(layers.Identity):
        """A layer that a target brings."""

    network = Network("later")
    network.output("y", network.add(Later(), network.input("x", Spec((2,), torch.float32))))
    save(network, *files)
    assert isinstance(load(*files).nodes[0].layer, Later)


def test_only_literals_in_use_are_written(files):
    network, _, _ = every_layer_network()
    network.literals.keep(torch.zeros(100))
    save(network, *files)
    used = {
        leaf.digest for constant in network.constants() for leaf in leaves(constant.weight) if isinstance(leaf, Literal)
    }
    assert set(load_file(files[1])) == used < set(network.literals.tensors)


def test_weights_are_not_in_the_files(files):
    network, _, source = every_layer_network()
    source.asked.clear()
    save(network, *files)
    load(*files)
    assert source.asked == []
    stored = {name for name in source.tensors if name in files[0].read_text()}
    assert stored == set(source.tensors)


def test_a_network_without_literals_is_a_network(files):
    network = Network("plain")
    network.output("y", network.add(layers.Unary("EXP"), network.input("x", every_layer_network()[0].inputs["hidden"])))
    save(network, *files)
    assert network_text(load(*files)) == network_text(network)


def node(data, kind):
    return next(node for node in data["nodes"] if node["layer"]["kind"] == kind)


DAMAGES = {
    "another format": (
        lambda data: data.update(format=FORMAT + 1),
        f"the network has format {FORMAT + 1}, not {FORMAT}",
    ),
    "no format": (lambda data: data.pop("format"), f"the network has format None, not {FORMAT}"),
    "no nodes": (
        lambda data: data.pop("nodes"),
        "the network file is damaged: 'nodes' is missing or unknown @ $.nodes",
    ),
    "no axis": (
        lambda data: node(data, "Softmax")["layer"].pop("axis"),
        "the network file is damaged: 'axis' is missing or unknown @ $.nodes[#].layer.axis",
    ),
    "more than we know": (
        lambda data: data.update(colour="red"),
        "the network file is damaged: extra fields found (colour) @ $",
    ),
    "an unknown layer": (
        lambda data: node(data, "Softmax")["layer"].update(kind="Sparkle"),
        "the network file is damaged: 'Sparkle' is missing or unknown @ $.nodes[#].layer",
    ),
    "an unknown operation": (
        lambda data: node(data, "Activation")["layer"].update(function="SPARKLE"),
        "the network file is damaged: SPARKLE not in literal",
    ),
    "an unknown foldable": (
        lambda data: node(data, "Constant")["layer"]["weight"].update(folded="sparkle"),
        "the network file is damaged: 'sparkle' is not a foldable operator @ $.nodes[#].layer.weight",
    ),
    "an unknown dtype": (
        lambda data: node(data, "Cast")["layer"].update(dtype="float7"),
        "the network file is damaged: 'float7' is not a dtype @ $.nodes[#].layer.dtype",
    ),
    "two faults": (
        lambda data: data["inputs"].update(hidden="float7[2]", cache="float32[2 2]"),
        "the network file is damaged: 'float7' is not a dtype @ $.inputs['hidden']; "
        "'2 2' is not a dimension @ $.inputs['cache']",
    ),
    "an input too few": (
        lambda data: node(data, "Convolution")["inputs"].clear(),
        "the network file is damaged: Convolution.infer() missing 2 required positional arguments: 'x' and 'kernel'",
    ),
    "an input that is not there": (
        lambda data: node(data, "Softmax").update(inputs=["nowhere"]),
        "the network file is damaged: there is no value named 'nowhere'",
    ),
    "no stride": (
        lambda data: node(data, "Convolution")["layer"].update(stride=[0, 0]),
        "the network file is damaged: integer division or modulo by zero",
    ),
    "a value made twice": (
        lambda data: data["nodes"].append(data["nodes"][0]),
        "the network file is damaged: there is a value named 'model.norm.0' already",
    ),
    "a layer that does not fit": (
        lambda data: node(data, "Softmax")["layer"].update(axis=7),
        "the network file is damaged: axis 7 does not fit float32[batch, 2, sequence]",
    ),
    "an output too few": (lambda data: node(data, "Softmax")["outputs"].clear(), "the network file is damaged: zip()"),
    "an output that is not there": (
        lambda data: data["outputs"].update(scores="nowhere"),
        "the network file is damaged: output scores is nowhere, which nothing makes",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_network_is_refused_with_the_fault(damage, saved):
    data = json.loads(saved[0].read_text())
    change, message = DAMAGES[damage]
    change(data)
    saved[0].write_text(json.dumps(data))
    with pytest.raises(TreeError) as error:
        load(*saved)
    assert re.sub(r"nodes\[\d+\]", "nodes[#]", error.value.cause).startswith(message)
    assert (error.value.where, error.value.remedy) == (str(saved[0]), "build the tree again")


@pytest.mark.parametrize(
    ("which", "content", "message"),
    [
        (0, None, "cannot read the network: [Errno 2] No such file or directory: "),
        (
            0,
            b"{",
            "cannot read the network: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        (0, b"\xff\xfe", "cannot read the network: 'utf-8' codec can't decode byte 0xff in position 0"),
        (0, b"[1]", f"the network has format None, not {FORMAT}"),
        (1, None, "cannot read the literals: "),
        (1, b"junk", "cannot read the literals: Error while deserializing header"),
    ],
)
def test_a_file_that_is_missing_or_something_else_is_named(which, content, message, saved):
    saved[which].unlink()
    if content is not None:
        saved[which].write_bytes(content)
    with pytest.raises(TreeError) as error:
        load(*saved)
    assert error.value.cause.startswith(message)
    assert (error.value.where, error.value.remedy) == (str(saved[which]), "build the tree again")


def test_missing_literals_are_found(saved):
    kept = load_file(saved[1])
    lost = Literal(kept.popitem()[0], (), torch.float32)
    save_file(kept, saved[1])
    with pytest.raises(TreeError) as error:
        load(*saved)
    assert f"needs {lost}, which the network does not carry" in error.value.cause
    assert error.value.where == str(saved[0])
