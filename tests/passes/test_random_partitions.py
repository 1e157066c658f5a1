"""Random networks in parts compute what PyTorch computes."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from tests.support.blocks import WIDTH, check_parts, network_of, runs


class Drawn(nn.Module):
    """A drawn block again and again, with a line that is another one here and there. A line makes a value of values
    before, its own weights, common ones or numbers."""

    def __init__(self, seed):
        super().__init__()
        self.rng = random.Random(seed)
        self.products, self.vectors = nn.ModuleList(), nn.ParameterList()
        template = [self.line() for _ in range(self.rng.randint(1, 4))]
        repeated = [line for _ in range(self.rng.randint(2, 5)) for line in template]
        lines = [self.line() if self.rng.random() < 0.08 else line for line in repeated]
        self.lines = [(kind, backs, choice, self.own(kind)) for kind, backs, choice in lines]
        made = range(3, 3 + len(lines))
        self.outputs = [*self.rng.sample(made, self.rng.randint(0, min(2, len(lines) - 1))), made[-1]]
        self.outputs = list(dict.fromkeys(self.outputs))

    def line(self):
        """What is done to the values how many lines before, and with which number or common weight."""
        kind = self.rng.choice(["product", "common product", "vector", "common vector", "number", "sum", "times"])
        return kind, tuple(self.rng.choice([1, 1, 1, 2, 3, 4, "x", "y"]) for _ in range(2)), self.rng.choice([0, 0, 1])

    def own(self, kind):
        """The index of a weight for a line."""
        if "product" in kind:
            self.products.append(nn.Linear(WIDTH, WIDTH, bias=False))
        if "vector" in kind:
            self.vectors.append(nn.Parameter(torch.rand(WIDTH) + 0.5))
        return (len(self.products) if "product" in kind else len(self.vectors)) - 1

    def forward(self, x):
        known = {"x": x, "y": torch.exp(-x * x)}
        made = [x, known["y"], torch.tanh(x)]
        for kind, backs, choice, own in self.lines:
            one, other = (known[back] if back in known else made[-min(back, len(made))] for back in backs)
            if "product" in kind:
                value = self.products[min(choice, own) if "common" in kind else own](one)
            elif "vector" in kind:
                value = one * self.vectors[min(choice, own) if "common" in kind else own]
            else:
                value = {"number": one * (2.0 + choice), "sum": one + other, "times": one * other}[kind]
            made.append(torch.tanh(value))
        return tuple(made[index] for index in self.outputs)


@pytest.mark.parametrize("seed", range(100))
def test_whatever_is_drawn_computes_what_pytorch_computes(seed):
    torch.manual_seed(seed)
    module = Drawn(seed)
    check_parts(module, [f"output {index}" for index in module.outputs], least_bytes=[1, 32, 1 << 20][seed % 3])


def test_most_of_what_is_drawn_has_blocks():
    modules = [Drawn(seed) for seed in range(100)]
    made = [runs(network_of(each, [f"output {index}" for index in each.outputs])) for each in modules]
    assert sum(max(times for _, times in each) > 1 for each in made) > 50
