"""The bundled LLaVA's world for tests: images, prompts, and what Hugging Face answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from PIL import Image

from examples.shapes_llava import scenes


@frozen
class Question:
    """A prompt about an image, and the answer that the image itself gives."""

    image: int
    kind: str
    prompt: str
    truth: str


def world(directory: Path, count: int = 32, seed: int = 5) -> tuple[list[Path], list[Question]]:
    """`count` image files and a question of every kind about each, prompts in all of the training's forms."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    drawn = [scenes.sample_scene(rng) for _ in range(count)]
    paths: list[Path] = []
    for index, image in enumerate(scenes.render(drawn, generator=rng)):
        paths.append(directory / f"{index}.png")
        Image.fromarray(image.permute(1, 2, 0).byte().numpy()).save(paths[-1])
    asked = [
        Question(index, kind, rng.choice(scenes.PROMPTS).format(q=question), answer)
        for index, scene in enumerate(drawn)
        for kind, (question, answer) in scenes.questions(scene, rng).items()
    ]
    return paths, asked


def one_of_each_kind(questions: Sequence[Question]) -> list[int]:
    """Numbers of questions: one of every kind, about images as different as there are."""
    kinds = list(dict.fromkeys(question.kind for question in questions))
    return [
        max(
            (number for number, question in enumerate(questions) if question.kind == kind),
            key=lambda number, turn=turn: (questions[number].image % len(kinds) == turn, -number),
        )
        for turn, kind in enumerate(kinds)
    ]


class HuggingFace:
    """The checkpoint, run by transformers in float32."""

    def __init__(self, checkpoint: Path, dtype: torch.dtype = torch.float32) -> None:
        from transformers import AutoProcessor, LlavaForConditionalGeneration

        self.model: Any = LlavaForConditionalGeneration.from_pretrained(checkpoint, torch_dtype=dtype).eval()
        self.processor: Any = AutoProcessor.from_pretrained(checkpoint)
        self.dtype = dtype

    def inputs(self, image: Path, prompt: str) -> dict[str, Any]:
        """What the processor makes of a prompt and its image."""
        with Image.open(image) as image:
            made = self.processor(text=[prompt], images=[image.convert("RGB")], return_tensors="pt")
        return {**made, "pixel_values": made["pixel_values"].to(self.dtype)}

    def tokens(self, image: Path, prompt: str, count: int = 64) -> tuple[int, ...]:
        """Greedy new tokens, the end token included."""
        given = self.inputs(image, prompt)
        with torch.no_grad():
            made = self.model.generate(**given, max_new_tokens=count, do_sample=False)
        new = made[0, given["input_ids"].shape[1] :].tolist()
        return tuple(new)
