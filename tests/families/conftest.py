"""Half of the families take part in each run, drawn anew each time; some of these with all of their tests."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.support.families import FAMILIES, SIZES

FILE = Path(__file__).parent / "test_families.py"
DRAWN = 8
# What the other families of a run are tested with, beside their embeddings of an image.
SHORT = ("test_tokens_are_hugging_faces", "test_videos_and_audio_are_refused")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark as slow what families that were not drawn need not show in this run."""
    names = sorted(FAMILIES)
    rng = random.Random(os.environ["DITTO_PROPERTY_SEED"])
    part = rng.sample(names, -(-len(names) // 2))
    drawn = {"llava", *part[:DRAWN]}
    size_of = {name: rng.choice([size for size in SIZES if size != "tiny"]) for name in names}
    for item in items:
        params = getattr(item, "callspec", None) and item.callspec.params
        if item.path != FILE or not params or params.get("case") is None or params["case"] in drawn:
            continue
        is_short = item.originalname in SHORT or params.get("size") == size_of[params["case"]]
        if params["case"] not in part or not is_short:
            item.add_marker(pytest.mark.slow)
