"""What quantisation costs is measured against the float model; verify compares with the quantised one."""

from __future__ import annotations

import math

import torch

from ditto import LlmBuilder
from ditto.verify.check import verify
from ditto.verify.cost import quantization_cost
from ditto.verify.inputs import mixed
from ditto.verify.reference_outputs import ReferenceOutputs
from tests.support.models import llama


def outputs(*rows):
    return ReferenceOutputs(None, torch.tensor(rows).log(), (0,) * len(rows))


def test_the_cost_is_the_divergence_of_the_next_token():
    exact, found = [outputs([0.5, 0.5]), outputs([0.9, 0.1])], [outputs([0.25, 0.75]), outputs([0.4, 0.6])]
    cost = quantization_cost(exact, found)
    first = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    second = 0.9 * math.log(0.9 / 0.4) + 0.1 * math.log(0.1 / 0.6)
    assert math.isclose(cost.divergence, (first + second) / 2, rel_tol=1e-6)
    assert (cost.tokens, cost.changed) == (2, 2)
    assert cost.text().startswith("quantised weights change 2 of 2 tokens of the float model: logits ")


def test_equal_models_cost_nothing():
    cost = quantization_cost([outputs([0.2, 0.8])], [outputs([0.2, 0.8])])
    assert (cost.relative_error, cost.divergence, cost.changed) == (0, 0, 0)


def test_a_tree_of_rounded_weights_is_compared_with_the_rounded_model(tmp_path):
    llama().save_pretrained(tmp_path / "model")
    builder = LlmBuilder.from_pretrained(str(tmp_path / "model")).with_target("tensorrt-rtx").with_quantization("int4")
    tree = builder.with_dtype("float32").build(tmp_path / "tree")
    assert tree.manifest.settings["llm"]["quantization"] == "int4"
    result = verify(tree, mixed(tree, 3, 1), session="reference", new_tokens=3)
    assert result.passed, result.text()
    assert result.cost is not None and 0.05 < result.cost.relative_error < 0.6
    assert result.cost.text() in result.text() and result.to_json()["cost"]["tokens"] == 3
