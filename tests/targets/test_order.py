"""An order says all that an engine depends on."""

from __future__ import annotations

import torch
from safetensors.torch import save_file

from ditto.arguments import DynamicDimension
from ditto.bindings import load_native
from ditto.checkpoint import CheckpointIndex, CheckpointReader
from ditto.configs import TensorRTBuilderConfig, TensorRTConfig
from ditto.network import Network, Spec, save, symbol
from ditto.network.layers import Constant, ElementWise
from ditto.network.outside import with_weights_outside
from ditto.network.weight import Stored
from ditto.targets import Profile, target
from ditto.targets.order import Order


def order(folder, **changes):
    settings = {
        "component": "llm",
        "target": "tensorrt-rtx",
        "network": str(folder),
        "outside": True,
        "checkpoint": str(folder),
        "profiles": tuple(
            Profile(f"rows-{rows}", {"batch": DynamicDimension("batch", 1, rows, rows)}) for rows in (1, 4)
        ),
        "tensorrt": TensorRTConfig(builder_config=TensorRTBuilderConfig(tf32=True, builder_optimization_level=2)),
        "capabilities": ("8.9", "12.0"),
        "engine": str(folder / "a file with späces.engine"),
        "work": 7,
    }
    return Order(**{**settings, **changes})


def test_an_order_survives_its_text(tmp_path):
    for made in (order(tmp_path), order(tmp_path, checkpoint=None, capabilities=(), outside=False)):
        assert Order.parse(made.text()) == made
        assert "\n" not in made.text()


def described(folder, width=256):
    """A sum with a weight of 256 kB, on disk."""
    save_file({"table": torch.rand(1, width, width)}, folder / "model.safetensors")
    network = Network("llm")
    x = network.input("x", Spec((symbol("batch"), width, width), torch.float32))
    weight = network.add(Constant(Stored("table", (1, width, width), torch.float32)))
    network.output("y", network.add(ElementWise("SUM"), x, weight))
    save(network, folder / "network.json", folder / "network.safetensors")
    return network


def test_the_engine_is_the_one_of_the_network_at_hand(tmp_path):
    network = described(tmp_path)
    made = order(tmp_path)
    version = load_native("tensorrt_rtx").version
    assert made.fulfil() == f"tensorrt_rtx {version}"
    other = order(tmp_path, engine=str(tmp_path / "other.engine"))
    source = CheckpointReader(CheckpointIndex.open(tmp_path))
    given = with_weights_outside(network)[0]
    assert other.fulfil_with(target("tensorrt-rtx"), given, source) == f"tensorrt_rtx {version}"
    assert (tmp_path / "other.engine").stat().st_size == (tmp_path / "a file with späces.engine").stat().st_size
