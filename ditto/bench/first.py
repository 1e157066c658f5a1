"""The first token of a newly opened system."""

from __future__ import annotations

import torch

from ditto.bench.system import System, TreeSystem, open_endless
from ditto.engine import EngineTree
from ditto.runtime.encoding import EncoderItem
from ditto.verify import inputs
from ditto.verify.inputs import Prompts, rows_per_image

_PROMPT = 16


def open_system(tree: EngineTree, session: str) -> TreeSystem:
    """A tree, opened in a session."""
    return TreeSystem(open_endless(tree, session))


def first_token(system: System, tree: EngineTree) -> int:
    """Generate one token after a short prompt, and encode an image if the tree has a vision engine."""
    if rows_per_image(tree):
        system.features(inputs.sample_items(tree, 1))
    length = min(_PROMPT, tree.limits.max_input_len)
    return system.answer(inputs.prompts(tree, 1, length), 1)[0][0]


def first_token_of_model(model: str, dtype: str) -> int:
    """The same for a Hugging Face model, on the GPU if there is one."""
    from ditto.bench.baselines import EagerBaseline  # a tree starts faster without it
    from ditto.families.registry import find_family
    from ditto.verify.model import load

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    baseline = EagerBaseline(load(model, getattr(torch, dtype), device), device)
    family = find_family(baseline.model.config.model_type)
    if family is not None:
        hints = family.encoder(baseline.model.config).inputs
        baseline.features([EncoderItem({name: torch.zeros(hint.sample_shape()[1:]) for name, hint in hints.items()})])
    return baseline.answer(Prompts(torch.full((1, _PROMPT), 5)), 1)[0][0]
