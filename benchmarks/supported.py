"""Hold the image-text and causal classes of the installed transformers against Ditto, and write docs/supported.md.

    python -m benchmarks.supported                     all image-text types
    python -m benchmarks.supported --part 2/4          the second quarter of them
    python -m benchmarks.supported internvl llava      these
    python -m benchmarks.supported --causal            all causal types; also with --part, or with types
    python -m benchmarks.supported --page              the page alone, from what is known

An image-text class is verified if a tiny random model of it, with a processor of the real class, passes `ditto verify`
on the CPU with images of different sizes; a causal class as `benchmarks.causal_classes` says. What each run finds
replaces what was known of its types in docs/supported.json or docs/supported_causal.json.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import transformers
from attrs import asdict, frozen
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from benchmarks.causal_classes import Form, answers, check_model, prompts_for
from benchmarks.tiny_models import causal_types, tiny_model
from ditto import MultimodalModel
from ditto.errors import DittoError
from ditto.families.reasons import REASONS
from ditto.families.registry import family_of, find_family
from ditto.targets.tensorrt.target import NativeTarget
from ditto.verify.check import verify
from ditto.verify.inputs import mixed
from tests.support.families import FAMILIES

DOCS = Path(__file__).parent.parent / "docs"
RECORD, CAUSAL_RECORD, PAGE = DOCS / "supported.json", DOCS / "supported_causal.json", DOCS / "supported.md"
TARGETS = ("tensorrt-rtx", "trtllm")
FORMS: Mapping[str, Form] = {"tensorrt-rtx": "combined", "trtllm": "packed"}
NEW_TOKENS = 6
TITLES = {"tensorrt-rtx": "plugin-free", "trtllm": "TensorRT-LLM"}


@frozen
class Result:
    """What is known of a type.

    Args:
        cls: its class in transformers.
        targets: by target, the largest relative error of image embeddings and logits in float32.
        reasons: by target, or `family`, why it is refused; `model`: why there is no tiny model of it.
    """

    cls: str
    transformers: str
    targets: Mapping[str, Mapping[str, float]]
    reasons: Mapping[str, str]


def held(model_type: str) -> Result:
    """Hold one type against Ditto."""
    cls, version = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[model_type], transformers.__version__
    targets: dict[str, Mapping[str, float]] = {}
    reasons: dict[str, str] = {}
    with TemporaryDirectory() as place:
        directory = Path(place)
        if find_family(model_type) is None:
            return Result(cls, version, {}, {"family": refusal(model_type, directory)})
        if model_type not in FAMILIES:
            return Result(cls, version, {}, {"family": "there is a family, and no tiny model to verify it with"})
        FAMILIES[model_type].save(directory / "checkpoint")
        for target in TARGETS:
            found = verified(directory / "checkpoint", target, directory / target)
            if isinstance(found, str):
                reasons[target] = found
            else:
                targets[target] = found
    return Result(cls, version, targets, reasons)


def verified(checkpoint: Path, target: str, out: Path) -> dict[str, float] | str:
    """Relative errors of a tree that passes with four prompts, at least three with an image; else why it is refused.

    Raises:
        AssertionError: it differs from Hugging Face.
    """
    try:
        model = MultimodalModel.from_pretrained(str(checkpoint)).with_batch(2).with_target(target)
        with patch.object(NativeTarget, "cannot_compile", "engines are described here, not compiled"):
            tree = model.build_all(out)
    except DittoError as error:
        return error.cause
    prompts = mixed(tree, NEW_TOKENS)
    assert sum(bool(prompt.items) for prompt in prompts) >= 3, "the engines have no room for the images"
    result = verify(tree, prompts, session="reference", new_tokens=NEW_TOKENS)
    assert result.passed, result.text()
    return {measure.name: measure.worst_relative_error for measure in result.measures}


def refusal(model_type: str, directory: Path) -> str:
    """Why a type without a family is refused, as `ditto build` says.

    Raises:
        AssertionError: it is not refused.
    """
    try:
        CONFIG_MAPPING[model_type]().save_pretrained(directory)
    except Exception:  # its configuration has no defaults
        return REASONS.get(model_type, "transformers has no default configuration of it")
    try:
        family_of(directory)
    except DittoError as error:
        return error.cause
    raise AssertionError(f"{model_type} is taken for a text model")


def held_causal(model_type: str) -> Result:
    """Hold the text side of a causal class against Ditto.

    Raises:
        AssertionError: it differs from Hugging Face, or is refused with an error that is not Ditto's.
    """
    name, version = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type], transformers.__version__
    cls = name if isinstance(name, str) else name[0]
    try:
        model = tiny_model(model_type)
        prompts = prompts_for(model)
        wanted = answers(model, prompts)
    except Exception as error:
        (reason, *_) = str(error).strip().splitlines() or [""]
        return Result(cls, version, {}, {"model": f"no tiny model of it runs: {type(error).__name__}: {reason[:120]}"})
    targets: dict[str, Mapping[str, float]] = {}
    reasons: dict[str, str] = {}
    for target, form in FORMS.items():
        outcome = check_model(model, prompts, wanted, form)
        assert outcome.verdict in ("verified", "refused"), f"{model_type} for {target}: {outcome}"
        if outcome.verdict == "verified":
            targets[target] = {"logits": outcome.difference}
        else:
            reasons[target] = outcome.reason
    if len(set(reasons.values())) == 1 and not targets:
        reasons = {"model": next(iter(reasons.values()))}
    return Result(cls, version, targets, reasons)


_SECTIONS = (
    (
        "Models of images and text",
        "image-text",
        (
            "*Verified* means that a tiny random model of the class, with its own processor, gives Hugging Face's",
            "image embeddings, logits and greedy tokens, with images of several sizes and without: relative errors in",
            "float32.",
        ),
    ),
    (
        "Language models",
        "causal",
        (
            "*Verified* means that a tiny random model of the class gives Hugging Face's logits and greedy tokens, for",
            "two prompts of different lengths and the tokens after them: relative errors in float32. Engines of",
            "TensorRT-LLM are held by a simulation of its runtime. Of a class that also reads images, this is the text",
            "side alone.",
        ),
    ),
)


def page(results: Mapping[str, Any], causal: Mapping[str, Any]) -> str:
    """The page of all types."""
    lines = ["# Supported models"]
    for (title, classes, words), found in zip(_SECTIONS, (results, causal), strict=True):
        lines += ["", f"## {title}", "", f"Every {classes} class of {_stated(found)}.", "", *words, "", *_table(found)]
    return "\n".join(lines) + "\n"


def _stated(results: Mapping[str, Any]) -> str:
    """The versions and counts of results."""
    counts = Counter(map(level, results.values()))
    versions = ", ".join(sorted({result["transformers"] for result in results.values()}))
    counted = ", ".join(f"{counts[name]} {name}" for name in sorted(counts))
    return f"transformers {versions}, as `benchmarks/supported.py` found it: {counted}"


def _table(results: Mapping[str, Any]) -> list[str]:
    """The lines of a table of types, verified ones first."""
    levels = {kind: level(result) for kind, result in results.items()}
    lines = [
        "| model type | class | level | plugin-free | TensorRT-LLM | reason |",
        "|---|---|---|---|---|---|",
    ]
    for kind, result in sorted(results.items(), key=lambda item: (not item[1]["targets"], item[0])):
        errors = [error_text(result["targets"].get(target)) for target in TARGETS]
        reason = "; ".join(
            (f"{TITLES[where]}: " if where in TITLES else "") + text.replace("|", "\\|")
            for where, text in result["reasons"].items()
        )
        lines.append(f"| `{kind}` | {result['cls']} | {levels[kind]} | {' | '.join(errors)} | {reason} |")
    return lines


def level(result: Mapping[str, Any]) -> str:
    """How far a type is supported."""
    if set(result["targets"]) == set(TARGETS):
        return "verified for both targets"
    return "verified" if result["targets"] else "refused"


def error_text(errors: Mapping[str, float] | None) -> str:
    return "" if errors is None else f"{max(errors.values()):.0e}"


def part_of(types: Sequence[str], part: str) -> list[str]:
    """The types of a part such as `2/4`."""
    number, count = (int(each) for each in part.split("/"))
    return list(types[number - 1 :: count])


def main() -> None:
    """Hold the asked types against Ditto, and write the record and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", metavar="TYPE")
    parser.add_argument("--part", default="1/1", metavar="I/N")
    parser.add_argument("--causal", action="store_true", help="causal types instead of image-text types")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    options = parser.parse_args()
    every = sorted(causal_types() if options.causal else MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    for kind in [] if options.page else options.types or part_of(every, options.part):
        found = asdict((held_causal if options.causal else held)(kind))
        print(f"{kind}: {level(found)}", flush=True)
        record = CAUSAL_RECORD if options.causal else RECORD
        record.write_text(json.dumps({**_known(record), kind: found}, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(page(_known(RECORD), _known(CAUSAL_RECORD)))


def _known(record: Path) -> dict[str, Any]:
    return json.loads(record.read_text()) if record.exists() else {}


if __name__ == "__main__":
    main()
