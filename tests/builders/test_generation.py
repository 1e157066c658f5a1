"""Generation defaults are those that Hugging Face's own model has when it is loaded from the same directory."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import pytest
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText, GenerationConfig

from ditto.builders import InMemory, Pretrained
from ditto.builders.generation import answer_settings, tokens
from ditto.errors import CheckpointError
from tests.support.models import llama, llava

FILES = [None, {}, {"eos_token_id": 5, "pad_token_id": 6}, {"pad_token_id": 9}, {"eos_token_id": [5, 11]}]
TOPS = [{}, {"eos_token_id": 7}, {"eos_token_id": [7, 8], "pad_token_id": 3, "repetition_penalty": 1.25}]
TEXTS = [{}, {"eos_token_id": None, "pad_token_id": None}, {"eos_token_id": 12, "no_repeat_ngram_size": 3, "top_k": 9}]


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """A checkpoint of each kind, to be changed by each test."""
    root = tmp_path_factory.mktemp("checkpoints")
    llama().save_pretrained(root / "llama")
    llava().save_pretrained(root / "llava")
    return {name: (root / name, json.loads((root / name / "config.json").read_text())) for name in ("llama", "llava")}


def written(directory, original, file, top, text):
    """The directory with these values in its files and no others."""
    config = json.loads(json.dumps(original))
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    for part in (config, config.get("text_config", {})):
        for name in names:
            part.pop(name, None)
    config.update(top)
    if "text_config" in config:
        config["text_config"].update(text)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "generation_config.json").unlink(missing_ok=True)
    if file is not None:
        (directory / "generation_config.json").write_text(json.dumps(file))
    return directory


def own(directory, name):
    """What `generate` of the model in the directory starts from."""
    cls = AutoModelForImageTextToText if name == "llava" else AutoModelForCausalLM
    return cls.from_pretrained(directory).generation_config


CASES = [
    *(("llava", None, *case) for case in itertools.product(TOPS, TEXTS)),
    *(("llava", file, TOPS[-1], TEXTS[-1]) for file in FILES[1:]),
    *(("llama", None, top, {}) for top in TOPS),
    *(("llama", file, TOPS[-1], {}) for file in FILES[1:]),
]


@pytest.mark.parametrize(("name", "file", "top", "text"), CASES, ids=str)
def test_every_setting_is_read_where_hugging_face_reads_it(name, file, top, text, directories):
    directory = written(*directories[name], file, top, text)
    wanted = own(directory, name)
    found = Pretrained(str(directory), "AutoModelForCausalLM").generation_config
    for setting, default in GenerationConfig().to_dict().items():
        if not setting.startswith("_") and setting != "transformers_version":
            assert found.get(setting, default) == getattr(wanted, setting), setting
    ends = wanted.eos_token_id
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    assert tokens(SimpleNamespace(), found, 128).end == ends


def test_a_model_in_memory_has_its_own_defaults():
    model = llama(eos_token_id=7)
    model.generation_config.repetition_penalty = 1.5
    found = InMemory(model).generation_config
    assert (found["eos_token_id"], found["repetition_penalty"]) == (7, 1.5)
    assert "repetition_penalty" not in InMemory(llama()).generation_config
    assert InMemory(model.model).generation_config["eos_token_id"] == 7  # a part without defaults: its configuration's


def test_biases_of_tokens_become_plain_values():
    model = llama()
    model.generation_config.sequence_bias = {(5, 6): -2.0, (7,): 1.0}
    found = InMemory(model).generation_config
    assert json.loads(json.dumps(found["sequence_bias"])) == [[[5, 6], -2.0], [[7], 1.0]]
    assert model.generation_config.sequence_bias == {(5, 6): -2.0, (7,): 1.0}


def test_unknown_keys_are_left_out(directories):
    directory = written(*directories["llama"], {"eos_token_id": 5, "chat_format": "x", "temperature": 0.5}, {}, {})
    assert Pretrained(str(directory), "AutoModelForCausalLM").generation_config == {
        "eos_token_id": 5,
        "temperature": 0.5,
    }


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", '{"max_new_tokens": -1}', '{"num_beams": "many"}'])
def test_defaults_that_cannot_be_read_are_refused(text, directories):
    directory = written(*directories["llama"], {}, {}, {})
    (directory / "generation_config.json").write_bytes(text.encode("latin-1"))
    source = Pretrained(str(directory), "AutoModelForCausalLM")
    if "num_beams" in text:  # transformers reads it; whoever runs the tree is told
        assert source.generation_config["num_beams"] == "many"
        return
    with pytest.raises(CheckpointError, match="cannot read the generation defaults") as caught:
        _ = source.generation_config
    assert caught.value.where.endswith("generation_config.json")


@pytest.mark.parametrize(("model_type", "wanted"), [("roberta", 1), ("camembert", 1), ("llama", None), ("bert", None)])
def test_models_that_make_positions_from_ids_do_not_count_padding(model_type, wanted):
    config = CONFIG_MAPPING[model_type]()
    assert tokens(config, {}, 128).uncounted == wanted


@pytest.mark.parametrize(
    "setting", ['"repetition_penalty": NaN', '"sequence_bias": [[[5], -Infinity]]', '"repetition_penalty": 1e30']
)
def test_numbers_that_a_manifest_cannot_hold_are_refused_before_anything_is_built(setting, directories):
    directory = written(*directories["llama"], {}, {}, {})
    (directory / "generation_config.json").write_text(f"{{{setting}}}")
    name = setting.split('"')[1]
    for source in (
        Pretrained(str(directory), "AutoModelForCausalLM"),
        InMemory(AutoModelForCausalLM.from_pretrained(directory)),
    ):
        with pytest.raises(CheckpointError, match=f"generation defaults state {name} .*, which is out of range"):
            _ = source.generation_config


@pytest.mark.parametrize(("end", "wanted"), [(2, [2]), ([2, 5], [2, 5]), (None, []), ([], []), (-1, [])])
def test_end_tokens_of_the_defaults(end, wanted):
    made = tokens(llava().config, {} if end is None else {"eos_token_id": end}, 128)
    assert (made.end, made.image, made.vocab_size) == (wanted, 127, 128)


@pytest.mark.parametrize(
    ("defaults", "wanted"),
    [
        ({}, 0),
        ({"eos_token_id": [4, 5]}, 4),
        ({"eos_token_id": 4, "pad_token_id": 3}, 3),
        ({"eos_token_id": 4, "pad_token_id": -1}, 4),  # as of the first LLaMA
        ({"pad_token_id": 128}, 0),  # an added token: an id above the embedding would be a row of an image
    ],
)
def test_fillers_are_tokens_of_the_vocabulary(defaults, wanted):
    assert tokens(llava().config, defaults, 128).pad == wanted


@pytest.mark.parametrize("value", ["</s>", 2.5, [2, "x"], {"a": 1}])
def test_end_tokens_that_are_not_ids_are_refused(value):
    with pytest.raises(CheckpointError, match="eos_token_id .* is not a token id"):
        tokens(llava().config, {"eos_token_id": value}, 128)


def test_settings_that_change_no_answer_are_not_kept():
    special = {"eos_token_id": 2, "bos_token_id": 1}
    form = {
        "output_attentions": False,
        "return_dict_in_generate": True,
        "use_cache": False,
        "cache_implementation": "x",
    }
    usual = {"repetition_penalty": 1.0, "top_k": 50, "num_beams": 1, "do_sample": False}
    kept = {"top_k": 5, "max_new_tokens": 9, "num_beams": 2, "do_sample": True}
    assert answer_settings({**special, **form, **usual}) == {}
    assert answer_settings({**special, **form, **kept}) == kept
    assert answer_settings(InMemory(llama()).generation_config) == {}
    assert answer_settings(InMemory(llava()).generation_config) == {}
