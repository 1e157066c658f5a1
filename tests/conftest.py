"""Fixtures that tests of every room use."""

from __future__ import annotations

import gc
import os
import random
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

# Models here are tiny: threads cost more than they bring, many times more on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

# What random configurations and rows of tables are drawn with: new for each run, one for all its processes.
os.environ.setdefault("DITTO_PROPERTY_SEED", str(random.SystemRandom().randrange(1 << 32)))

REPOSITORY = Path(__file__).parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark as slow the rows of large tables that are not drawn for this run."""
    tables: dict[tuple[str, str], list[pytest.Function]] = {}
    for item in items:
        if item.get_closest_marker("drawn") and not item.get_closest_marker("slow"):
            tables.setdefault((str(item.path.relative_to(REPOSITORY)), item.originalname), []).append(item)
    rng = random.Random(os.environ["DITTO_PROPERTY_SEED"])
    for _, rows in sorted(tables.items(), key=lambda table: table[0]):
        (count,) = rows[0].get_closest_marker("drawn").args
        for item in rng.sample(rows, max(len(rows) - count, 0)):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """Spare the garbage collector what was imported: torch.export makes so much garbage that searching all else for
    more takes a sixth of the time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Spare it what outlives a test file: fixtures of the session and caches."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """Tell what became of random configurations, and how to draw the same again."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    told = [
        f"{report.nodeid.split('::')[0]}: {text}"
        for report in reports
        for name, text in report.user_properties
        if name == "random configurations"
    ]
    terminalreporter.section("drawn for this run")
    terminalreporter.write_line(
        "\n".join([*told, f"DITTO_PROPERTY_SEED={os.environ['DITTO_PROPERTY_SEED']} draws the same"])
    )


class _TextFiles(SingleFileSnapshotExtension):
    """Golden files that a person can read."""

    _write_mode = WriteMode.TEXT
    file_extension = "txt"


@pytest.fixture
def golden(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    """Compare a text with a file under `__snapshots__`; `pytest --snapshot-update` rewrites it."""
    return snapshot.use_extension(_TextFiles)


@pytest.fixture(scope="session")
def shapes_checkpoint() -> Path:
    """The bundled, trained LLaVA."""
    return REPOSITORY / "examples" / "shapes_llava" / "checkpoint"


@pytest.fixture(scope="session")
def images() -> list[Path]:
    """The bundled images."""
    return sorted((REPOSITORY / "examples" / "shapes_llava" / "pictures").glob("*.png"))


@pytest.fixture(scope="session")
def llava_tree(tmp_path_factory):
    """A tiny random LLaVA's tree; not to be changed."""
    from tests.support.trees import llava_tree

    return llava_tree(tmp_path_factory.mktemp("session") / "llava")


@pytest.fixture(scope="session")
def llama_tree(tmp_path_factory):
    """A tiny random Llama's tree; not to be changed."""
    from tests.support.trees import llama_tree

    return llama_tree(tmp_path_factory.mktemp("session") / "llama")


@pytest.fixture(scope="session")
def shapes_tree(shapes_checkpoint, tmp_path_factory):
    """The bundled LLaVA's tree for a batch of 2, as `ditto build --batch 2` makes it; not to be changed."""
    from ditto import LlavaModel

    model = LlavaModel.from_pretrained(str(shapes_checkpoint)).with_batch(2).with_target("tensorrt-rtx")
    return model.build_all(tmp_path_factory.mktemp("session") / "shapes")


@pytest.fixture(scope="session")
def packed_shapes_tree(shapes_checkpoint, tmp_path_factory):
    """The bundled LLaVA's tree for TensorRT-LLM and a batch of 2; not to be changed."""
    from ditto import LlavaModel

    model = LlavaModel.from_pretrained(str(shapes_checkpoint)).with_batch(2).with_target("trtllm")
    return model.build_all(tmp_path_factory.mktemp("session") / "packed")


@pytest.fixture(scope="session")
def hugging_face(shapes_checkpoint):
    """The bundled LLaVA, run by transformers."""
    from tests.support.shapes import HuggingFace

    return HuggingFace(shapes_checkpoint)


@pytest.fixture(scope="session")
def asked(tmp_path_factory):
    """16 image files, and questions of every kind about each."""
    from tests.support.shapes import world

    return world(tmp_path_factory.mktemp("images"), count=16)


@pytest.fixture(scope="session")
def expected(hugging_face, asked):
    """Hugging Face's tokens for each question."""
    images, questions = asked
    return [hugging_face.tokens(images[question.image], question.prompt) for question in questions]
