"""Comparison of an engine tree with the model that it was built from.

The reference is Hugging Face in float32. The error of a tree in another dtype may reach that dtype's tolerance, or one
and a half times the error of Hugging Face itself in that dtype; that of a float32 tree may reach TF32's tolerance in a
session whose products round to it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from attrs import evolve
from loguru import logger
from torch import Tensor

from ditto.engine import EngineTree, Phase
from ditto.errors import CheckpointError, ConfigError
from ditto.network.quantized import QuantizedWeight
from ditto.progress import stage
from ditto.reference import RELATIVE_ERROR, TF32_RELATIVE_ERROR, watching
from ditto.runtime import open_session
from ditto.runtime.encoding import EncoderShapes
from ditto.runtime.profiles import component_for
from ditto.runtime.reference import ReferenceSession
from ditto.runtime.weights import network_of
from ditto.text.processing import foreign
from ditto.verify import inputs
from ditto.verify.compare import Trio, difference, measure, worst_prompt
from ditto.verify.cost import quantization_cost, rounded_weights
from ditto.verify.divergence import Divergences
from ditto.verify.inputs import Prompts, shapes_of
from ditto.verify.model import check_model, checkpoint_of, exact_products, load, rounded
from ditto.verify.reference_outputs import ReferenceOutputs, greedy, look, modules
from ditto.verify.report import Verification
from ditto.verify.tree import answers, embeddings, logits, requests_of, steps

T = TypeVar("T")


@exact_products()
def verify(
    tree: EngineTree,
    prompts: Sequence[Prompts],
    against: str | None = None,
    session: str = "auto",
    new_tokens: int = 16,
) -> Verification:
    """Compare image embeddings, logits of every new position, and greedy tokens.

    Locate the layer if they differ.

    Args:
        prompts: each entry holds one prompt. Hugging Face runs them one at a time, the tree runs them in batches.
        against: a checkpoint directory or hub id; None for the checkpoint that the tree was built from.
        session: name of the session that runs the tree.
        new_tokens: maximum per prompt.
    Raises:
        DittoError: the tree cannot be run, or the model cannot be loaded.
    """
    if not prompts or new_tokens < 1:
        raise ConfigError("there is nothing to compare", remedy="ask for at least one prompt and one new token")
    inputs.check(tree, prompts, new_tokens)
    model = checkpoint_of(tree, against)
    check_model(tree, model, sees=any(prompt.items for prompt in prompts))
    opened = open_session(tree, session)
    dtype: Any = getattr(torch, tree.component("llm").spec.dtype)

    def looked(face: Any, exact: list[ReferenceOutputs] | None) -> list[ReferenceOutputs]:
        with foreign(CheckpointError, "Hugging Face cannot run the model", model, "check the model's files"):
            tokens = [item.tokens for item in exact] if exact else [greedy(face, each, new_tokens) for each in prompts]
            return [look(face, prompt, given) for prompt, given in zip(prompts, tokens, strict=True)]

    with stage("hugging face", model):
        replaced = rounded_weights(tree)
        exact, own = _in_both_dtypes(model, dtype, opened.device, looked, replaced)
        cost = None
        if replaced:
            face = load(model, torch.float32, opened.device, attention="eager")
            cost = quantization_cost(looked(face, exact), exact)
            del face
    with stage("tree", opened.name):
        seen = [embeddings(opened, prompt) for prompt in prompts]
        requests = [requests_of(opened, prompt, rows)[0] for prompt, rows in zip(prompts, seen, strict=True)]
        scores = [logits(opened, request, item.tokens) for request, item in zip(requests, exact, strict=True)]
        tokens = answers(opened, requests, new_tokens)
    features = [
        trio
        for number, (prompt, rows, wanted, mine) in enumerate(zip(prompts, seen, exact, own, strict=True), 1)
        if rows is not None and wanted.features is not None and mine.features is not None
        for trio in _by_image(number, shapes_of(tree), prompt, rows.float().cpu(), wanted.features, mine.features)
    ]
    trios = [
        Trio(number, "token", found, wanted.logits, mine.logits)
        for number, (found, wanted, mine) in enumerate(zip(scores, exact, own, strict=True), 1)
    ]
    compared = {"logits": trios} if not features else {"features": features, "logits": trios}
    in_tf32 = dtype == torch.float32 and opened.rounds_to_tf32
    tolerance = TF32_RELATIVE_ERROR if in_tf32 else RELATIVE_ERROR[dtype]
    measures = [measure(name, items, tolerance) for name, items in compared.items()]
    rows = enumerate(zip(exact, tokens, strict=True), 1)
    each = [difference(number, wanted, found, measures[-1].allowed) for number, (wanted, found) in rows]
    differences = [item for item in each if item is not None]
    result = Verification(
        tree=str(tree.root),
        model=model,
        session=opened.name,
        dtype=str(dtype).removeprefix("torch."),
        in_tf32=in_tf32,
        measures=tuple(measures),
        tokens=sum(len(item.tokens) for item in exact),
        differences=tuple(differences),
        left_out=tuple(sorted(tree.manifest.generation)),
        cost=cost,
    )
    if result.passed:
        return result
    logger.info("found so far, before the search for the layer:\n{}", result.text())
    index = worst_prompt(list(zip(measures, compared.values(), strict=True)), differences) - 1
    return _with_divergences(result, tree, prompts[index], exact[index], dtype, opened.device)


def _by_image(number: int, shapes: EncoderShapes, prompt: Prompts, *sides: Tensor) -> list[Trio]:
    """Image embeddings of a prompt from three sides, image by image."""
    counts = [shapes.rows(item) for item in prompt.items]
    parts = zip(*(side.split(counts) for side in sides), strict=True)
    return [Trio(number, "image", *(part[None] for part in three), first=index) for index, three in enumerate(parts, 1)]


def _with_divergences(
    result: Verification,
    tree: EngineTree,
    prompt: Prompts,
    exact: ReferenceOutputs,
    dtype: torch.dtype,
    device: torch.device,
) -> Verification:
    """The result with the first diverging layer of each network.

    PyTorch runs all networks.
    """
    with stage("diverging layers"):
        replaced = rounded_weights(tree)
        wide, narrow = _in_both_dtypes(result.model, dtype, device, lambda face, _: modules(face, prompt), replaced)
        # Networks that ran on a GPU have no plugins; PyTorch is also much faster there.
        session = open_session(tree, "reference") if device.type == "cpu" else ReferenceSession(tree, device)

        def divergences(label: str, component: str) -> Divergences:
            return Divergences(label, network_of(tree, component), wide, narrow, RELATIVE_ERROR[dtype])

        watchers: list[Divergences] = []
        if prompt.items:
            watchers.append(divergences("vision", "vision"))
            with watching(watchers[-1].watch):
                embeddings(session, prompt)
        # With Hugging Face's image embeddings, so that errors of the vision engine do not count for the decoder.
        (request,) = requests_of(session, prompt, exact.features)
        watchers.append(divergences("llm", "llm"))
        with watching(watchers[-1].watch):
            logits(session, request, exact.tokens[:1])
        is_text = request.ids[-1] < session.tokens.vocab_size  # an image token cannot run alone
        if is_text and (request.spans is None or not request.spans[-1]):  # nor can those that earlier ones attend to
            # Run the prompt's last token again, alone, on the KV cache of the preceding tokens.
            step = steps(session, evolve(request, ids=request.ids[:-1]), (request.ids[-1], 0))
            next(step)
            watchers.append(divergences("decode", component_for(tree, Phase.DECODE)))
            with watching(watchers[-1].watch):
                next(step)
    found = [watcher.first for watcher in watchers]
    compared = sum(watcher.compared for watcher in watchers)
    return evolve(result, divergences=tuple(item for item in found if item is not None), compared=compared)


def _in_both_dtypes(
    model: str,
    dtype: torch.dtype,
    device: torch.device,
    work: Callable[[Any, T | None], T],
    replaced: Mapping[str, QuantizedWeight],
) -> tuple[T, T]:
    """Results of `work` for the model in float32, then in `dtype`.

    The second call receives the first result.

    Args:
        replaced: quantised weights in place of tensors of the checkpoint.
    """
    # Other implementations of attention ignore logit soft-capping.
    face = load(model, torch.float32, device, attention="eager", quantized=replaced)
    exact = work(face, None)
    if dtype == torch.float32:
        return exact, exact
    rounded(face, dtype)
    own = work(face, exact)
    del face
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return exact, own
