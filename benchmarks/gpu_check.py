"""What a machine with a GPU has to show: the TensorRT session's answers beside Hugging Face's, and its timings.

    python -m benchmarks.gpu_check [--dtype float16 float32] [--work DIRECTORY]

Builds the bundled LLaVA for TensorRT-RTX and runs it in all the ways that `ditto run` knows. Each part reports its own
failure and the rest goes on; the exit code is 1 if any failed.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import define, field

from benchmarks.gpu import gpu_for
from ditto import EngineTree, LlavaModel
from ditto.engine import Phase, version_of
from ditto.families.preprocessor import TilePreprocessor
from ditto.runtime import Batch, Request, Sampling, generate, open_session
from ditto.runtime.encoding import EncoderItem
from ditto.text.images import load_image
from ditto.text.pipeline import GenerationPipeline
from tests.support.shapes import HuggingFace, Question, world

CHECKPOINT = Path(__file__).parent.parent / "examples" / "shapes_llava" / "checkpoint"
ROWS = 4
TOKENS = 64
# The questions have 71 to 82 tokens: most run on profiles for usual prompts, some on the one for all.
USUAL = 80


@define
class Report:
    """Verdicts as they come, and all of them at the end."""

    lines: list[tuple[str, bool, str]] = field(factory=list)

    def part(self, name: str, work: Callable[[], tuple[bool, str]]) -> bool:
        """Run a part; what it raises is its verdict."""
        start = time.perf_counter()
        try:
            passed, told = work()
        except Exception as error:
            traceback.print_exc()
            passed, told = False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        told = f"{told} ({time.perf_counter() - start:.1f} s)"
        self.lines.append((name, passed, told))
        print(f"{'ok  ' if passed else 'FAIL'} {name:<52} {told}", flush=True)
        return passed

    def table(self) -> int:
        """Print all verdicts; returns the exit code."""
        print("\n| part | verdict | |\n|---|---|---|")
        for name, passed, told in self.lines:
            print(f"| {name} | {'ok' if passed else 'FAIL'} | {told} |")
        return 0 if all(passed for _, passed, _ in self.lines) else 1


class Checks:
    """All parts for one tree."""

    def __init__(self, report: Report, tree: EngineTree, label: str, asked: Any, face: HuggingFace) -> None:
        self.report, self.tree, self.label, self.face = report, tree, label, face
        self.images, self.questions = asked
        start = time.perf_counter()
        self.session: Any = open_session(tree, "tensorrt")
        opened = time.perf_counter()
        _ = self.session.loaded
        done = time.perf_counter()
        print(f"{label}: session in {opened - start:.2f} s, engines loaded in {done - start:.2f} s", flush=True)
        self.pipeline = GenerationPipeline(self.session)

    def run(self, expected: Sequence[tuple[int, ...]]) -> None:
        """Run every part."""
        parts = {
            "first answer": self.first,
            "32 images, batch 1": lambda: self.questions_by(1, expected),
            f"32 images, batch {ROWS}": lambda: self.questions_by(ROWS, expected),
            "again, graphs recorded": lambda: self.questions_by(ROWS, expected),
            "0, 1 and 2 images in a batch": self.different_images,
            "requests join and leave": lambda: self.joining(expected),
            "sampling with a seed": self.sampling,
            "streaming": lambda: self.streaming(expected),
            "CUDA graphs": self.graphs,
            "timings": self.timings,
        }
        for name, work in parts.items():
            self.report.part(f"{self.label}: {name}", work)

    def first(self) -> tuple[bool, str]:
        """Time to the first answer, kernels compiled on the way."""
        question = self.questions[0]
        reply = self.pipeline.answer([question.prompt], [self.images[question.image]], max_new_tokens=1)
        return True, f"{reply.seconds}"

    def questions_by(self, rows: int, expected: Sequence[tuple[int, ...]]) -> tuple[bool, str]:
        """Greedy tokens, `rows` questions at a time."""
        wrong: list[str] = []
        for start in range(0, len(self.questions), rows):
            part: list[Question] = self.questions[start : start + rows]
            images = [self.images[question.image] for question in part]
            reply = self.pipeline.answer([question.prompt for question in part], images, max_new_tokens=TOKENS)
            for question, made, wanted in zip(part, reply.tokens, expected[start : start + rows], strict=True):
                if made != wanted:
                    wrong.append(f"image {question.image}, {question.kind}: {made} for {wanted}")
        told = f"{len(self.questions) - len(wrong)} of {len(self.questions)} as Hugging Face"
        return not wrong, f"{told}; {wrong[0]}" if wrong else told

    def different_images(self) -> tuple[bool, str]:
        """Rows with two images, none, one, and one, of different lengths."""
        prompts = [
            "USER: <image><image>\nDescribe this image. ASSISTANT:",
            "USER: How many shapes are there? ASSISTANT:",
            "USER: <image>\nHow many shapes are there? ASSISTANT:",
            "<image>\nDescribe this image.",
        ]
        counts = [prompt.count("<image>") for prompt in prompts]
        starts = [sum(counts[:row]) for row in range(len(counts))]
        images = [self.images[start : start + count] for start, count in zip(starts, counts, strict=True)]
        given = [self.given(prompt, part) for prompt, part in zip(prompts, images, strict=True)]
        made = [answer.ids for answer in generate(self.session, [self.request(each) for each in given], TOKENS)]
        wanted = [self.face_tokens(each) for each in given]
        return made == wanted, "equal" if made == wanted else f"{made} for {wanted}"

    def joining(self, expected: Sequence[tuple[int, ...]]) -> tuple[bool, str]:
        """Ten requests through three rows, one more joining after every second step."""
        requests = [self.question(question) for question in self.questions[:10]]
        with Batch(self.session, 3) as batch:
            flights = [batch.join(requests[0], TOKENS)]
            steps = 0
            while batch.busy or len(flights) < len(requests):
                batch.step()
                steps += 1
                if steps % 2 == 0 and len(flights) < len(requests):
                    flights.append(batch.join(requests[len(flights)], TOKENS))
        wrong = [n for n, flight in enumerate(flights) if tuple(flight.made) != expected[n]]
        return not wrong, f"{len(requests)} requests in {steps} steps, wrong: {wrong}"

    def sampling(self) -> tuple[bool, str]:
        """The same seed gives the same tokens, alone or in a batch; another seed gives others."""
        requests = [self.question(question) for question in self.questions[:ROWS]]

        def made(session: Any, rows: int, seed: int) -> list[list[int]]:
            sampling = Sampling(temperature=8.0, top_k=50, top_p=0.95, seed=seed)
            with Batch(session, rows) as batch:
                flights = [batch.join(request, 24, sampling) for request in requests[:rows]]
                while batch.busy:
                    batch.step()
            return [flight.made for flight in flights]

        first, again, alone, other = (
            made(self.session, rows, seed) for rows, seed in ((ROWS, 1), (ROWS, 1), (1, 1), (ROWS, 2))
        )
        here = made(open_session(self.tree, "reference"), ROWS, 1)
        same = sum(left == right for left, right in zip(first, here, strict=True))
        passed = first == again and alone[0] == first[0] and first != other
        return passed, f"repeats: {first == again}, alone: {alone[0] == first[0]}, {same} of {ROWS} as on the CPU"

    def streaming(self, expected: Sequence[tuple[int, ...]]) -> tuple[bool, str]:
        """Tokens come one by one, while others are computed."""
        seen: list[int] = []
        with Batch(self.session, 1) as batch:
            batch.join(self.question(self.questions[0]), TOKENS)
            steps = 0
            while batch.busy:
                steps += 1
                seen += [flight.made[-1] for flight in batch.step()]
        return tuple(seen) == expected[0], f"{len(seen)} tokens in {steps} steps"

    def graphs(self) -> tuple[bool, str]:
        """Whether decoding was recorded, and usual prompts where there are profiles for them."""
        runner = self.session.start(ROWS)
        try:
            profiles = self.tree.component("llm").spec.profiles
            usual = any(profile.phase == Phase.PREFILL and profile.size("sequence") for profile in profiles)
            told = f"decode: {runner.is_recorded}, prompts: {runner.has_recorded_prompts}"
            return runner.is_recorded and runner.has_recorded_prompts == usual, told
        finally:
            runner.close()

    def timings(self) -> tuple[bool, str]:
        """Vision, prompt and step, by batch."""
        told: list[str] = []
        for rows in (1, ROWS):
            requests = [self.question(question) for question in self.questions[:rows]]
            items = [EncoderItem({"input": torch.randn(3, 112, 112)}) for _ in range(rows)]
            vision = self.milliseconds(partial(self.session.embeddings, items))
            few, many = (self.milliseconds(partial(self.tokens, requests, count), 5) for count in (1, 33))
            told.append(f"batch {rows}: vision {vision:.2f} ms, prompt {few:.2f} ms, step {(many - few) / 32:.3f} ms")
        peak = torch.cuda.max_memory_allocated() / 2**20
        return True, "; ".join([*told, f"torch's peak {peak:.0f} MiB"])

    def tokens(self, requests: Sequence[Request], count: int) -> None:
        """So many tokens of each request, end tokens ignored."""
        end, self.session.tokens.end[:] = list(self.session.tokens.end), []
        try:
            with Batch(self.session, len(requests)) as batch:
                for request in requests:
                    batch.join(request, count)
                while batch.busy:
                    batch.step()
        finally:
            self.session.tokens.end[:] = end

    def milliseconds(self, work: Callable[[], object], times: int = 20) -> float:
        """Mean of some runs after three others."""
        for _ in range(3):
            work()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(times):
            work()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / times * 1e3

    def question(self, question: Question) -> Request:
        """A question as the session takes it."""
        return self.request(self.given(question.prompt, [self.images[question.image]]))

    def given(self, prompt: str, images: Sequence[Path]) -> Any:
        """What the processor makes of a prompt with any number of images."""
        loaded = [load_image(path) for path in images]
        return self.face.processor(text=[prompt], images=loaded or None, return_tensors="pt")

    def request(self, given: Any) -> Request:
        """The same as the session takes it."""
        ids, pixels = given["input_ids"][0].tolist(), given.get("pixel_values")
        if pixels is None:
            return Request(tuple(ids))
        items = TilePreprocessor().items({"pixel_values": pixels})
        features = torch.cat(self.session.embeddings(items))
        rows = iter(range(len(features)))
        image, vocab_size = self.session.tokens.image, self.session.tokens.vocab_size
        return Request(tuple(vocab_size + next(rows) if token == image else token for token in ids), features)

    def face_tokens(self, given: Any) -> tuple[int, ...]:
        """Hugging Face's answer to the same."""
        with torch.no_grad():
            made = self.face.model.generate(**given, max_new_tokens=TOKENS, do_sample=False)
        return tuple(made[0, given["input_ids"].shape[1] :].tolist())


def main() -> int:
    """Run all parts; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--dtype", nargs="+", default=["float16", "float32"])
    parser.add_argument("--work", type=Path, help="directory for trees and images (default: a temporary one)")
    options = parser.parse_args()
    device = gpu_for(parser)
    work = options.work or Path(tempfile.mkdtemp())
    packages = ("torch", "transformers", "tensorrt_rtx", "tensorrt_rtx_cu12", "numpy")
    gpu = f"{torch.cuda.get_device_name(device)}, {torch.cuda.get_device_capability(device)}"
    print(
        f"Python {platform.python_version()}, {', '.join(f'{p} {version_of(p)}' for p in packages)}, {gpu}", flush=True
    )
    report = Report()
    (work / "pictures").mkdir(parents=True, exist_ok=True)
    asked = world(work / "pictures")
    face = HuggingFace(CHECKPOINT)
    start = time.perf_counter()
    expected = [face.tokens(asked[0][question.image], question.prompt, TOKENS) for question in asked[1]]
    print(
        f"Hugging Face, float32 on the CPU: {len(expected)} answers in {time.perf_counter() - start:.1f} s", flush=True
    )
    model = LlavaModel.from_pretrained(str(CHECKPOINT)).with_batch(ROWS).with_target("tensorrt-rtx")
    variants = {dtype: model.with_dtype(dtype) for dtype in options.dtype}
    outside = model.with_optimize("latency").with_tuning("9.0").with_opt_input_len(USUAL)
    variants[f"{options.dtype[0]}, external weights"] = outside.with_dtype(options.dtype[0])
    for label, builder in variants.items():
        trees: list[EngineTree] = []

        def build(builder: Any = builder, label: str = label, trees: list[EngineTree] = trees) -> tuple[bool, str]:
            trees.append(builder.build_all(work / label.replace(", ", "-").replace(" ", "-")))
            return True, "built"

        def check(label: str = label, trees: list[EngineTree] = trees) -> tuple[bool, str]:
            Checks(report, trees[0], label, asked, face).run(expected)
            return True, "done"

        if report.part(f"{label}: build", build):
            report.part(f"{label}: session", check)
    return report.table()


if __name__ == "__main__":
    sys.exit(main())
