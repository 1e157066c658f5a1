"""A model's family follows from its configuration."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ditto import LlavaModel, LlmBuilder, MultimodalModel
from ditto.errors import CheckpointError, ConfigError
from ditto.families import registry
from ditto.families.registry import family_of, find_family, supported_types
from tests.support.models import llama, llava


def test_a_llava_is_a_llava(shapes_checkpoint):
    assert isinstance(family_of(str(shapes_checkpoint)), LlavaModel)


def test_a_text_model_is_a_language_model_alone(tmp_path):
    llama().save_pretrained(tmp_path)
    assert isinstance(family_of(str(tmp_path)), LlmBuilder)


@pytest.mark.parametrize("model_type", ["clip", "vit", "blip"])
def test_other_models_are_refused_with_what_is_supported(tmp_path, model_type):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ConfigError, match=f"model type '{model_type}' is not supported") as caught:
        family_of(str(tmp_path))
    assert f"supported: {', '.join(supported_types())}, and text-only causal language models" in str(caught.value)


def test_the_reason_comes_before_faults_of_a_configuration_that_no_family_reads(tmp_path):
    config = {"model_type": "florence2", "vision_config": {"patch_size": [7, 3, 3, 3]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="model type 'florence2' is not supported: it is an encoder-decoder"):
        family_of(str(tmp_path))


def test_families_load_no_builder():
    """Trees run without them."""
    code = (
        "import sys; from ditto.families.registry import find_family, supported_types\n"
        "print([find_family(name).__name__ for name in supported_types()].count('LlavaModel'))\n"
        "print(sorted({'ditto.builders', 'ditto.capture', 'transformers'} & set(sys.modules)))"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout == "1\n[]\n"


def test_the_base_class_finds_the_family(tmp_path):
    llava().save_pretrained(tmp_path)
    assert type(MultimodalModel.from_pretrained(str(tmp_path))) is LlavaModel
    with pytest.raises(CheckpointError, match="'llama' is not a supported vision-language family"):
        MultimodalModel.from_model(llama())


class Entry:
    """An entry point of another package."""

    name, value = "other", "other:Model"

    def __init__(self, found):
        self.found = found

    def load(self):
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.fixture
def others(monkeypatch):
    """Entry points of other packages, by name."""
    found = {}
    monkeypatch.setattr(registry, "_others", lambda: found)
    find_family.cache_clear()
    yield found
    find_family.cache_clear()


def test_other_packages_register_families(others):
    class Other(LlavaModel):
        model_type = "other"

    others["other"] = Entry(Other)
    assert find_family("other") is Other
    assert "other" in supported_types() and find_family("another") is None


def test_a_family_of_another_package_counts_more_than_a_reason(others, tmp_path):
    class Mllama(LlavaModel):
        model_type = "mllama"

        @classmethod
        def from_pretrained(cls, model, *, revision=None):
            return "made"

    others["mllama"] = Entry(Mllama)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mllama"}))
    assert family_of(str(tmp_path)) == "made"


def test_a_package_that_cannot_be_imported_is_named(others):
    others["other"] = Entry(ImportError("no module"))
    with pytest.raises(ConfigError, match="the family 'other' of 'other:Model' cannot be imported: no module"):
        find_family("other")
