"""The first token of a contender that was just made."""

from __future__ import annotations

import torch

from ditto.bench.contender import Contender, TreeContender, open_endless
from ditto.engine import EngineTree
from ditto.verify import inputs
from ditto.verify.inputs import Prompts, rows_per_picture

_PROMPT = 16


def open_contender(tree: EngineTree, session: str) -> TreeContender:
    """The tree in a session."""
    return TreeContender(open_endless(tree, session))


def first_token(contender: Contender, tree: EngineTree) -> int:
    """A token of a short prompt; a picture is looked at where there is a vision engine."""
    if rows_per_picture(tree):
        contender.features(inputs.pictures(tree, 1).to(contender.device))
    length = min(_PROMPT, tree.config("llm")["build_config"]["max_input_len"])
    return contender.answer(inputs.prompts(tree, 1, length), 1)[0][0]


def first_token_of_model(model: str, dtype: str) -> int:
    """The same of a Hugging Face model, on the GPU if there is one."""
    from ditto.bench.rivals import EagerRival  # a tree starts sooner without
    from ditto.verify.model import load

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rival = EagerRival(load(model, getattr(torch, dtype), device), device)
    vision = getattr(rival.model.config, "vision_config", None)
    if vision is not None:
        rival.features(torch.zeros(1, 3, vision.image_size, vision.image_size, device=device))
    return rival.answer(Prompts(torch.full((1, _PROMPT), 5)), 1)[0][0]
