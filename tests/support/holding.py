"""The property of drawn configurations: each is built and equals Hugging Face, or is refused with the reason. Networks
are computed in the parts that their engines have."""

from __future__ import annotations

import copy
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from attrs import define, field, frozen
from hypothesis import HealthCheck, given, reject, seed, settings
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from ditto import EngineTree, LlavaModel, LlmBuilder
from ditto.errors import DittoError
from ditto.reference import RELATIVE_ERROR, relative_error
from ditto.runtime import Session, generate, open_session
from ditto.runtime.session import ScheduledRow
from ditto.runtime.weights import network_of, weights_of
from ditto.targets.tensorrt.target import NativeTarget
from ditto.verify.inputs import Prompts
from ditto.verify.tree import embeddings, requests_of
from tests.support.decoding import eager, in_dtype
from tests.support.drawn import Drawn, Llava
from tests.support.images import prompts as given_prompts
from tests.support.layers import emitted
from tests.support.models import image_features
from tests.support.parts import DIVISIONS, as_a_whole, run_in_parts
from tests.support.refusals import the_reason

# How networks are divided when they are computed here, where hardly a weight is large, by where weights are.
_EMITTED = {"external": DIVISIONS["outside"], "embedded": DIVISIONS["inside"]}
_COMPUTED = {"external": DIVISIONS["all outside"], "embedded": DIVISIONS["inside"]}
SEED = "DITTO_PROPERTY_SEED"
PROPERTY = "random configurations"
NEW_TOKENS = 4
# What engines are built for, by where their weights are.
OPTIMIZE = {"embedded": "portable", "external": "latency"}
TUNING = {"embedded": "none", "external": "9.0"}
WORDS = 12


def hold_all(
    drawn: SearchStrategy[Drawn], count: int, record: Callable[[str, object], None], directory: Path, part: int
) -> None:
    """Hold to the property `count` configurations that transformers can run, drawn with the seed of this run.

    Args:
        part: parts of one run draw different configurations.
        record: pytest's `record_property`: what became of them is told at the end of the run.
        directory: for checkpoints and trees.
    Raises:
        AssertionError: one does not hold; hypothesis has made it as small as it could.
    """
    outcomes: Counter[Outcome] = Counter()

    @seed(int(os.environ[SEED]) + part)
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(drawn)
    def holds(configuration: Drawn) -> None:
        with TemporaryDirectory(dir=directory) as place:
            outcome = hold(configuration, Path(place))
        outcomes[outcome] += 1
        if outcome.by_hugging_face:
            reject()

    try:
        holds()
    finally:
        record(PROPERTY, ", ".join(f"{times} {outcome.name}" for outcome, times in outcomes.most_common()))
    assert sum(times for outcome, times in outcomes.items() if not outcome.by_hugging_face) >= count
    assert outcomes[BUILT] >= count // 6, "what is refused teaches little"


@frozen
class Outcome:
    """What became of a configuration.

    Args:
        by_hugging_face: transformers cannot run it, so that it proves nothing.
    """

    name: str
    by_hugging_face: bool = False


BUILT = Outcome("built")


def hold(drawn: Drawn, directory: Path) -> Outcome:
    """Hold one configuration to the property.

    Raises:
        AssertionError: it is not built as Hugging Face has it, or refused without a reason.
    """
    try:
        model = drawn.model.made(drawn.seed)
    except Exception:
        return Outcome("not made by transformers", by_hugging_face=True)
    stored = in_dtype(model, drawn.build.stored)
    try:
        tree = built(drawn, stored, directory)
    except DittoError as error:
        return Outcome(f"refused for {the_reason(drawn, error).name}", by_hugging_face=not runs(drawn, stored))
    exact = eager(in_dtype(stored, torch.float32))
    own = [eager(nudged(exact, drawn.build.dtype, seed)) for seed in range(3)]
    divide = _COMPUTED[drawn.build.weights] if drawn.build.target == "tensorrt-rtx" else as_a_whole
    with patch("ditto.runtime.reference.run", partial(run_in_parts, divide=divide)):
        compare(drawn, tree, exact, own)
    return BUILT


def runs(drawn: Drawn, model: Any) -> bool:
    """Whether Hugging Face can run the model."""
    try:
        model(input_ids=torch.tensor([[3, 4, 5]]))
        if isinstance(drawn.model, Llava):
            size = drawn.model.vision["image_size"]
            pixels = torch.zeros(1, drawn.model.vision["num_channels"], size, size, dtype=model.dtype)
            return image_features(model, pixels).numel() > 0
    except Exception:
        return False
    return True


def nudged(model: Any, dtype: torch.dtype, seed: int) -> Any:
    """The model in `dtype`, each weight moved by a rounding. How far its results lie from those of the model itself
    tells how far those of another order of computing may."""
    generator, eps = torch.Generator().manual_seed(seed), torch.finfo(dtype).eps
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        noise = torch.rand(parameter.shape, generator=generator) - 0.5
        parameter.data = (parameter.data * (1 + eps * noise)).to(dtype)
    return twin


def built(drawn: Drawn, model: Any, directory: Path) -> EngineTree:
    """Its tree, by way of the public builders; of engines that are not to be compiled, the library has taken every
    layer."""
    asked = drawn.build
    whole = isinstance(drawn.model, Llava)
    builders = LlavaModel if whole else LlmBuilder
    if asked.in_memory:
        builder = builders.from_model(model)
    else:
        model.save_pretrained(directory / "checkpoint")
        builder = builders.from_pretrained(str(directory / "checkpoint"))
    builder = (
        builder.with_target(asked.target)
        .with_batch(asked.batch)
        .with_optimize(OPTIMIZE[asked.weights])
        .with_tuning(TUNING[asked.weights])
    )
    builder = builder.with_dtype("auto" if asked.dtype == asked.stored else asked.dtype)
    if asked.max_seq_len is not None:
        builder = builder.with_max_seq_len(asked.max_seq_len)
    if asked.max_input_len is not None:
        builder = builder.with_max_input_len(asked.max_input_len)
    build = builder.build_all if isinstance(builder, LlavaModel) else builder.build
    if asked.compiled:
        return build(directory / "tree")
    with patch.object(NativeTarget, "cannot_compile", "it takes longer than all else"):
        tree = build(directory / "tree")
    if asked.target == "tensorrt-rtx":
        for name in tree.manifest.components:
            network = network_of(tree, name)
            for part in _EMITTED[asked.weights](network).networks:
                emitted(part, weights_of(tree, name))
    return tree


@torch.no_grad()
def compare(drawn: Drawn, tree: EngineTree, exact: Any, own: Sequence[Any]) -> None:
    """Hold a tree against Hugging Face: features, logits of rows of different lengths after prefill and decoding
    steps, greedy tokens, and what config.json says of the heads.

    Args:
        exact, own: the model in float32, and nudged in the engines' dtype.
    """
    session = open_session(tree, "reference")
    given = list(prompts(drawn, tree))
    seen = [embeddings(session, prompt) for prompt in given]
    requests = [requests_of(session, prompt, features)[0] for prompt, features in zip(given, seen, strict=True)]
    with watched(session) as logits:
        answers = generate(session, requests, NEW_TOKENS)
    features, rows, tokens = Trios(drawn.build.dtype), Trios(drawn.build.dtype), list[int]()
    for prompt, mine, request, answer in zip(given, seen, requests, answers, strict=True):
        if prompt.items:
            faces = [image_features(model, **images(prompt, model)).flatten(0, 1) for model in (exact, *own)]
            features.add(mine, *faces)
        made = list(answer.ids)
        ends = [index for index, token in enumerate(made) if token in drawn.text.ends]
        assert ends == [len(made) - 1] or (not ends and len(made) == NEW_TOKENS), f"{made} ends wrongly"
        if session.tokens.image in made:  # Hugging Face would look for an image of it
            made = made[: made.index(session.tokens.image) + 1]
        ids = torch.cat([prompt.ids, torch.tensor([made[:-1]], dtype=torch.int64)], dim=1)
        faces = [
            model(input_ids=ids, use_cache=False, **images(prompt, model)).logits[0, -len(made) :]
            for model in (exact, *own)
        ]
        rows.add(torch.stack(logits[id(request)][: len(made)]), *faces)
        tokens += made
    features.check("features")
    allowed = rows.check("logits")
    for token, row in zip(tokens, torch.cat(rows.exact), strict=True):
        gap, each = float(row.max() - row[token]), allowed * float(row.norm()) / len(row) ** 0.5
        assert gap <= 6 * each, f"token {token} lies {gap:.2g} below Hugging Face's choice"
    decoder, decoder_config = exact.get_decoder(), tree.config("llm")["pretrained_config"]
    assert decoder_config["rotary_embedding_dim"] == 2 * len(decoder.rotary_emb.inv_freq)
    assert decoder_config["head_size"] == decoder.layers[0].self_attn.head_dim


@define
class Trios:
    """The same numbers from three sides, part by part.

    Args:
        found: the tree's, in `dtype`.
        exact, own: Hugging Face's in float32, and several times in `dtype`.
    """

    dtype: torch.dtype
    found: list[Tensor] = field(factory=list)
    exact: list[Tensor] = field(factory=list)
    own: list[Tensor] = field(factory=list)

    def add(self, found: Any, exact: Tensor, *own: Tensor) -> None:
        """Take a part."""
        assert found.shape == exact.shape, f"the shape is {list(found.shape)}, Hugging Face's {list(exact.shape)}"
        for held, part in ((self.found, found), (self.exact, exact), (self.own, torch.stack(own))):
            held.append(part.float())

    def check(self, what: str) -> float:
        """Check that the tree's numbers are as near to Hugging Face's as their dtype allows, or up to twice as far as
        Hugging Face's own in that dtype. Returns the relative error that is allowed."""
        if not self.found:
            return 0.0
        found, exact = (torch.cat([part.flatten() for part in held]) for held in (self.found, self.exact))
        own = torch.cat([part.flatten(1) for part in self.own], dim=1)
        allowed = max(RELATIVE_ERROR[self.dtype], *(2 * relative_error(each, exact) for each in own))
        error = relative_error(found, exact)
        assert error <= allowed, f"{what} are {error:.2g} from Hugging Face's, {allowed:.2g} is allowed"
        return allowed


def prompts(drawn: Drawn, tree: EngineTree) -> Iterator[Prompts]:
    """As many as the engines take at once, of different lengths; a LLaVA's with no, one or more images."""
    rng, generator = random.Random(drawn.seed), torch.Generator().manual_seed(drawn.seed)
    limits = tree.config("llm")["build_config"]
    longest = min(limits["max_input_len"], limits["max_seq_len"] - NEW_TOKENS)
    left = limits["max_batch_size"]  # images
    for _ in range(limits["max_batch_size"]):
        ids = [rng.randrange(drawn.text.settings["vocab_size"]) for _ in range(rng.randint(1, min(WORDS, longest)))]
        if not isinstance(drawn.model, Llava):
            yield given_prompts(torch.tensor([ids]))
            continue
        image, vision = drawn.model.settings["image_token_index"], drawn.model.vision
        rows = tree.config("vision")["builder_config"]["output_shape"][1]
        ids = [token for token in ids if token != image] or [image - 1]
        wanted = rng.choice([0, 1, 1]) if drawn.build.target == "trtllm" else rng.choice([0, 1, 1, 2])
        count = min(wanted, left, (longest - len(ids)) // rows)
        left -= count
        start = rng.randint(0, len(ids))
        ids[start:start] = [image] * rows * count
        size = vision["image_size"]
        pixels = torch.randn(count, vision["num_channels"], size, size, generator=generator)
        yield given_prompts(torch.tensor([ids]), pixels if count else None)


def images(prompt: Prompts, model: Any) -> dict[str, Tensor]:
    """A prompt's images as Hugging Face takes them."""
    return {name: tensor.to(model.dtype) for name, tensor in prompt.inputs.items()}


@contextmanager
def watched(session: Session) -> Iterator[dict[int, list[Tensor]]]:
    """Gives the logits that the session's next batches compute: by `id` of the request, one after another."""
    seen: dict[int, list[Tensor]] = defaultdict(list)
    start = session.start

    def watch(batch: int) -> Any:
        runner = start(batch)
        step = runner.step

        def record(scheduled: Sequence[ScheduledRow], sampled: Tensor) -> Tensor:
            logits = step(scheduled, sampled)
            for each, row in zip(scheduled, logits, strict=True):
                seen[id(each.request)].append(row.clone())
            return logits

        runner.step = record
        return runner

    with patch.object(session, "start", watch):
        yield seen
