"""What TensorRT is given computes what Hugging Face computes: prefill, decoding and vision towers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionConfig, LlavaForConditionalGeneration

from ditto.builders import LlmBuilder
from ditto.families.llava import LlavaModel
from ditto.reference import RELATIVE_ERROR, relative_error
from tests.support.forms import as_if_large
from tests.support.models import LLAVA_MODELS, TEXT_MODELS, VISION, image_features, llama, llava
from tests.support.parts import in_shared_blocks
from tests.support.witness import replay
from tests.support.witnessed import (
    Decoder,
    DisaggregatedDecoder,
    allowed_error,
    decoder_errors,
    definition_of,
    described,
    described_disaggregated,
    eager,
    logits,
    replayed,
    replayed_in_parts,
    step_errors,
)

# Longer than the windows (5) of the models, and of different lengths.
LENGTHS = (12, 8)
FLOAT, HALF, BF16 = torch.float32, torch.float16, torch.bfloat16


def _rows(first: int, last: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(first, last, (length,), generator=generator) for length in LENGTHS]


def _pixels(model: Any) -> torch.Tensor:
    size = model.config.vision_config.image_size
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))


@pytest.mark.drawn(5)
@pytest.mark.parametrize("name", TEXT_MODELS)
def test_a_decoder_computes_what_hugging_face_computes(name):
    model, rows = TEXT_MODELS[name](), _rows(3, 128)
    kept = definition_of(LlmBuilder.from_model(model))
    assert max(decoder_errors(kept, rows, logits(eager(model), rows))) <= RELATIVE_ERROR[FLOAT]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("gemma2 with soft-caps and windows", HALF), ("qwen3", HALF), ("llama", BF16)],
)
def test_a_decoder_loses_to_rounding_no_more_than_hugging_face(name, dtype):
    model, rows = TEXT_MODELS[name](), _rows(3, 128)
    kept = definition_of(LlmBuilder.from_model(model).with_dtype(dtype))
    wanted = logits(eager(model), rows)
    own = max(map(relative_error, logits(model.to(dtype), rows), wanted))
    assert max(decoder_errors(kept, rows, wanted)) <= allowed_error(dtype, own)


@pytest.mark.parametrize("name", LLAVA_MODELS)
def test_a_vision_tower_computes_what_hugging_face_computes(name):
    model = LLAVA_MODELS[name]()
    kept, pixels = definition_of(LlavaModel.from_model(model).vision), _pixels(model)
    found = replay(kept.definition, {"input": pixels})["encoder_output"]
    assert relative_error(found, image_features(eager(model), pixels)) <= RELATIVE_ERROR[FLOAT]


@pytest.mark.parametrize(("name", "dtype"), [("several layers", HALF), ("siglip", BF16)])
def test_a_vision_tower_loses_to_rounding_no_more_than_hugging_face(name, dtype):
    model = LLAVA_MODELS[name]()
    kept, pixels = definition_of(LlavaModel.from_model(model).with_dtype(dtype).vision), _pixels(model)
    found = replay(kept.definition, {"input": pixels.to(dtype)})["encoder_output"]
    wanted = image_features(eager(model), pixels)
    own = relative_error(image_features(model.to(dtype), pixels.to(dtype)), wanted)
    assert relative_error(found, wanted) <= allowed_error(dtype, own)


@pytest.mark.parametrize("name", ["llama", "llama with tied embeddings", "gemma2 with soft-caps and windows", "qwen2"])
def test_a_decoder_in_parts_computes_what_hugging_face_computes(name):
    model, rows = TEXT_MODELS[name](), _rows(3, 128)
    decoder = Decoder(replayed_in_parts(*described(LlmBuilder.from_model(model))))
    assert max(step_errors(decoder, rows, logits(eager(model), rows))) <= RELATIVE_ERROR[FLOAT]


def _disaggregated(builder: LlmBuilder, table: torch.Tensor | None = None) -> DisaggregatedDecoder:
    made = {name: replayed_in_parts(*network) for name, network in described_disaggregated(builder).items()}
    return DisaggregatedDecoder(made["llm"], made["llm-decode"], table)


@pytest.mark.drawn(5)
@pytest.mark.parametrize("name", TEXT_MODELS)
def test_separate_prefill_and_decode_compute_what_hugging_face_computes(monkeypatch, name):
    as_if_large(monkeypatch)
    model, rows = TEXT_MODELS[name](), _rows(3, 128)
    decoder = _disaggregated(LlmBuilder.from_model(model))
    assert max(step_errors(decoder, rows, logits(eager(model), rows))) <= RELATIVE_ERROR[FLOAT]


def test_a_deep_decoder_calls_one_block_for_each_layer():
    model, rows = llama(num_hidden_layers=5), _rows(3, 128)
    networks = described_disaggregated(LlmBuilder.from_model(model))
    calls = {name: in_shared_blocks(network, 1).schedule.calls for name, (network, _) in networks.items()}
    times = {name: sum(not call.concurrent for call in made) for name, made in calls.items()}
    assert times == {
        "llm": 1 + 4 + 1,
        "llm-decode": 1 + 5 + 1,
    }  # of a prompt's last layer only the last tokens are wanted
    made = {name: replayed_in_parts(*network) for name, network in networks.items()}
    errors = step_errors(DisaggregatedDecoder(made["llm"], made["llm-decode"]), rows, logits(eager(model), rows))
    assert max(errors) <= RELATIVE_ERROR[FLOAT]


def test_a_deep_tower_calls_one_block_for_each_layer():
    model = llava(CLIPVisionConfig(**{**VISION, "num_hidden_layers": 6}), vision_feature_layer=[-6, -3, -1])
    pixels = _pixels(model)
    network, source = described(LlavaModel.from_model(model).with_optimize("latency").with_tuning("9.0").vision)
    assert len(in_shared_blocks(network, 1).schedule.calls) == 1 + 5 + 1  # behind the sixth there is no norm
    found = replayed_in_parts(network, source).run({"input": pixels})["encoder_output"]
    assert relative_error(found, image_features(eager(model), pixels)) <= RELATIVE_ERROR[FLOAT]


@pytest.mark.parametrize("name", LLAVA_MODELS)
def test_a_vision_tower_in_parts_computes_what_hugging_face_computes(name):
    model = LLAVA_MODELS[name]()
    pixels = _pixels(model)
    tower = replayed_in_parts(
        *described(LlavaModel.from_model(model).with_optimize("latency").with_tuning("9.0").vision)
    )
    found = tower.run({"input": pixels})["encoder_output"]
    assert relative_error(found, image_features(eager(model), pixels)) <= RELATIVE_ERROR[FLOAT]


def test_ids_past_the_vocabulary_take_rows_of_the_prompt_table():
    model, rows = LLAVA_MODELS["last layer"](), _rows(3, 128)
    table = torch.randn(5, 64, generator=torch.Generator().manual_seed(2))
    rows[0][3:6], rows[1][0], rows[1][-1] = torch.tensor([128, 131, 129]), 132, 130
    builder, wanted = LlavaModel.from_model(model).llm, logits(eager(model), rows, table)
    assert max(decoder_errors(definition_of(builder), rows, wanted, table)) <= RELATIVE_ERROR[FLOAT]
    rows[1][-1] = 17  # what the model itself chooses is never a row of the table
    separate, wanted = _disaggregated(builder, table), logits(model, rows, table)
    assert max(step_errors(separate, rows, wanted)) <= RELATIVE_ERROR[FLOAT]


@pytest.fixture(scope="module")
def bundled(shapes_checkpoint: Path) -> Any:
    return eager(LlavaForConditionalGeneration.from_pretrained(shapes_checkpoint).float().eval())


@pytest.mark.parametrize("dtype", [FLOAT, HALF])
def test_the_bundled_model_answers_about_images_as_in_hugging_face(bundled, shapes_checkpoint, images, dtype):
    family = LlavaModel.from_pretrained(str(shapes_checkpoint)).with_dtype(dtype)
    vision, llm = definition_of(family.vision), definition_of(family.llm, capacity=128)
    tokenizer = AutoTokenizer.from_pretrained(shapes_checkpoint)
    loaded = [Image.open(path) for path in images[:2]]
    pixels = CLIPImageProcessor.from_pretrained(shapes_checkpoint)(loaded, return_tensors="pt")["pixel_values"]
    features = replay(vision.definition, {"input": pixels.to(dtype)})["encoder_output"]
    assert relative_error(features, image_features(bundled, pixels)) <= RELATIVE_ERROR[dtype]

    image, vocab_size = bundled.config.image_token_index, bundled.config.text_config.vocab_size
    decoder, prompts, mine = Decoder(replayed(llm), features.flatten(0, 1)), [], []
    for index, question in enumerate(("How many shapes are there?", "Which?")):
        before, after = (tokenizer(text)["input_ids"] for text in ("USER: ", f"\n{question} ASSISTANT:"))
        prompts.append(torch.tensor(before + [image] * 64 + after))
        virtual = torch.arange(64 * index, 64 * (index + 1)) + vocab_size
        mine.append(torch.cat((torch.tensor(before), virtual, torch.tensor(after))))
    found = decoder.step(mine)
    with torch.no_grad():
        for _ in range(2):
            wanted = torch.stack(
                [
                    bundled(input_ids=prompt[None], pixel_values=pixels[index : index + 1]).logits[0, -1]
                    for index, prompt in enumerate(prompts)
                ]
            )
            assert relative_error(found, wanted) <= RELATIVE_ERROR[dtype]
            chosen = wanted.argmax(-1, keepdim=True)
            prompts = [torch.cat(pair) for pair in zip(prompts, chosen, strict=True)]
            found = decoder.step(list(chosen))
