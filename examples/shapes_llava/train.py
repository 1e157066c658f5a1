"""Trains the bundled LLaVA (CLIP tower, MLP projector, Llama) to describe images of coloured shapes.

    python -m examples.shapes_llava.train OUT [--steps 6000] [--batch 512] [--device cuda] [--minutes 8]

The result is a real, trained checkpoint in Hugging Face's format, about 10 MB in float16, so that the whole way from
checkpoint to answer can be shown without a download. Needs a GPU for a few minutes, and transformers 5.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from examples.shapes_llava.scenes import (
    COLORS,
    DESCRIBE,
    IMAGE_SIZE,
    PROMPTS,
    SHAPES,
    SIZES,
    caption,
    question_answer,
    render,
    sample_scene,
)

PATCH = 14
IMAGE_ROWS = (IMAGE_SIZE // PATCH) ** 2
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BOS, EOS, PAD = 1, 2, 3


def build_tokenizer(vocab: int = 512) -> Any:
    """A byte-level BPE of the world's own sentences, with `<image>`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(1)
    corpus = []
    for _ in range(20000):
        question, answer = question_answer(sample_scene(rng), rng)
        corpus.append(rng.choice(PROMPTS).replace("<image>", " ").format(q=question) + " " + answer)
    corpus += ["Shapes, sizes, colors: " + " ".join(itertools.chain(SHAPES, COLORS, SIZES))] * 50
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - 1,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens(["<image>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        padding_side="left",
        model_max_length=512,
    )


def build_model(image_id: int) -> Any:
    """The untrained model."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=3,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
        projection_dim=192,
    )
    text = LlamaConfig(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image_id,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=IMAGE_ROWS,
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
    )
    return LlavaForConditionalGeneration(config)


def main() -> None:
    """Train, evaluate, save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0)
    options = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer.convert_tokens_to_ids("<image>")).to(options.device).train()
    rng = random.Random(2)
    train(model, tokenizer, rng, options)
    model.eval().half()
    evaluate(model, tokenizer, rng, options.device)
    save(model, tokenizer, options.out)


def pixels(scenes: list[Any], device: str, rng: random.Random) -> torch.Tensor:
    """Normalised images."""
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
    return (render(scenes, device=device, generator=rng) / 255 - mean) / std


def train(model: Any, tokenizer: Any, rng: random.Random, options: argparse.Namespace) -> None:
    """Cross entropy of the answers, AdamW, cosine schedule."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05)
    start = time.time()
    for step in range(options.steps):
        done = max(step / options.steps, (time.time() - start) / 60 / options.minutes)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 300) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        scenes = [sample_scene(rng) for _ in range(options.batch)]
        ids, labels, seen = (part.to(options.device) for part in _batch(scenes, tokenizer, rng))
        with torch.autocast(options.device.split(":")[0], dtype=torch.bfloat16):
            given = {"input_ids": ids, "attention_mask": seen, "pixel_values": pixels(scenes, options.device, rng)}
            logits = model(**given, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.4f} {time.time() - start:.0f}s", flush=True)


def _batch(scenes: list[Any], tokenizer: Any, rng: random.Random) -> tuple[torch.Tensor, ...]:
    rows, labels = [], []
    for scene in scenes:
        question, answer = question_answer(scene, rng)
        before, after = rng.choice(PROMPTS).format(q=question).split("<image>")
        head = [BOS, *_ids(tokenizer, before), *[_image(tokenizer)] * IMAGE_ROWS, *_ids(tokenizer, after)]
        tail = [*_ids(tokenizer, " " + answer), EOS]
        rows.append(head + tail)
        labels.append([-100] * len(head) + tail)
    width = (max(map(len, rows)) + 7) // 8 * 8
    return (
        torch.tensor([row + [PAD] * (width - len(row)) for row in rows]),
        torch.tensor([label + [-100] * (width - len(label)) for label in labels]),
        torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    )


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _image(tokenizer: Any) -> int:
    return tokenizer.convert_tokens_to_ids("<image>")


def evaluate(model: Any, tokenizer: Any, rng: random.Random, device: str) -> None:
    """Exact captions in float16."""
    exact = 0
    before, after = PROMPTS[0].format(q=DESCRIBE[0]).split("<image>")
    head = [BOS, *_ids(tokenizer, before), *[_image(tokenizer)] * IMAGE_ROWS, *_ids(tokenizer, after)]
    for _ in range(8):
        scenes = [sample_scene(rng) for _ in range(128)]
        ids = torch.tensor([head] * len(scenes), device=device)
        with torch.no_grad():
            made = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=pixels(scenes, device, rng).half(),
                max_new_tokens=64,
                do_sample=False,
                eos_token_id=EOS,
                pad_token_id=PAD,
            )
        texts = tokenizer.batch_decode(made[:, len(head) :], skip_special_tokens=True)
        exact += sum(text.strip() == caption(scene) for text, scene in zip(texts, scenes, strict=True))
    print(f"exact captions: {exact} of 1024", flush=True)


def save(model: Any, tokenizer: Any, out: Path) -> None:
    """Write a checkpoint directory that both transformers 4.51 and 5 load."""
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config.update(
        max_new_tokens=96, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, do_sample=False
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    image = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": IMAGE_SIZE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
        "do_convert_rgb": True,
    }
    processor = {
        "processor_class": "LlavaProcessor",
        "patch_size": PATCH,
        "image_token": "<image>",
        "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": "default",
    }
    (out / "preprocessor_config.json").write_text(json.dumps(image, indent=2))
    (out / "processor_config.json").write_text(json.dumps(processor, indent=2))
    template = (Path(__file__).parent / "checkpoint" / "chat_template.jinja").read_text()
    (out / "chat_template.jinja").write_text(template)


if __name__ == "__main__":
    main()
