"""The first token of a newly opened system."""

from __future__ import annotations

import torch

from ditto.bench.system import System, TreeSystem, open_endless
from ditto.engine import EngineTree
from ditto.text.processing import preprocessor_of
from ditto.verify import inputs
from ditto.verify.inputs import rows_per_image

_PROMPT = 16


def open_system(tree: EngineTree, session: str) -> TreeSystem:
    """A tree, opened in a session."""
    return TreeSystem(open_endless(tree, session))


def first_token(system: System, tree: EngineTree) -> int:
    """Generate one token after a short prompt, and encode an image if the tree has a vision engine.

    The prompt holds an image where the model takes no other.
    """
    rows, has_image = rows_per_image(tree), inputs.needs_image(tree)
    if rows:
        system.features(inputs.sample_items(tree, 1))
    length = min(_PROMPT + rows * has_image, tree.limits.max_input_len)
    return system.answer(inputs.prompts(tree, 1, length, has_image), 1)[0][0]


def open_model(model: str, dtype: str, tree: EngineTree) -> System:
    """A Hugging Face model for the images and prompts of a tree, on the GPU if there is one."""
    from ditto.bench.baselines import EagerBaseline  # a tree starts faster without it
    from ditto.verify.model import load

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return EagerBaseline(load(model, getattr(torch, dtype), device), device, preprocessor_of(tree))
