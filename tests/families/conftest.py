"""All families take part in each run; some, drawn anew each time, with all of their tests."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.support.families import FAMILIES, SIZES

FILE = Path(__file__).parent / "test_families.py"
DRAWN = 8
# What each family is tested with in each run, beside its embeddings of an image.
ALWAYS = ("test_tokens_are_hugging_faces", "test_videos_and_audio_are_refused")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark as slow what families that were not drawn need not show in this run."""
    names = sorted(FAMILIES)
    rng = random.Random(os.environ["DITTO_PROPERTY_SEED"])
    drawn = {"llava", *rng.sample(names, DRAWN)}
    size_of = {name: rng.choice([size for size in SIZES if size != "tiny"]) for name in names}
    for item in items:
        params = getattr(item, "callspec", None) and item.callspec.params
        if item.path != FILE or not params or params.get("case") is None or params["case"] in drawn:
            continue
        if item.originalname not in ALWAYS and params.get("size") != size_of[params["case"]]:
            item.add_marker(pytest.mark.slow)
