"""Hold every image-text class of the installed transformers against Ditto, and write docs/supported.md.

    python -m benchmarks.supported                     all types
    python -m benchmarks.supported --part 2/4          the second quarter of them
    python -m benchmarks.supported internvl llava      these
    python -m benchmarks.supported --page              the page alone, from what is known

A class is verified if a tiny random model of it, with a processor of the real class, passes `ditto verify` on the CPU
with images of different sizes. What each run finds replaces what was known of its types in docs/supported.json.
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
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from ditto import MultimodalModel
from ditto.errors import DittoError
from ditto.families.reasons import REASONS
from ditto.families.registry import family_of, find_family
from ditto.targets.tensorrt.target import NativeTarget
from ditto.verify.check import verify
from ditto.verify.inputs import mixed
from tests.support.families import FAMILIES

DOCS = Path(__file__).parent.parent / "docs"
RECORD, PAGE = DOCS / "supported.json", DOCS / "supported.md"
TARGETS = ("tensorrt-rtx", "trtllm")
NEW_TOKENS = 6
TITLES = {"tensorrt-rtx": "plugin-free", "trtllm": "TensorRT-LLM"}


@frozen
class Result:
    """What is known of a type.

    Args:
        cls: its class in transformers.
        targets: by target, the largest relative error of image embeddings and logits in float32.
        reasons: by target, or `family`, why it is refused.
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


def page(results: Mapping[str, Any]) -> str:
    """The page of all types."""
    levels = {kind: level(result) for kind, result in results.items()}
    counts = Counter(levels.values())
    versions = sorted({result["transformers"] for result in results.values()})
    lines = [
        "# Supported models",
        "",
        f"Every image-text class of transformers {', '.join(versions)}, as `benchmarks/supported.py` found it: "
        + ", ".join(f"{counts[name]} {name}" for name in sorted(counts))
        + ".",
        "",
        "*Verified* means that a tiny random model of the class, with its own processor, gives Hugging Face's image",
        "embeddings, logits and greedy tokens, with images of several sizes and without: relative errors in float32.",
        "",
        "| model type | class | level | plugin-free | TensorRT-LLM | reason |",
        "|---|---|---|---|---|---|",
    ]
    for kind, result in sorted(results.items(), key=lambda item: (levels[item[0]] == "refused", item[0])):
        errors = [error_text(result["targets"].get(target)) for target in TARGETS]
        reason = "; ".join(
            (f"{TITLES[where]}: " if where in TITLES else "") + text for where, text in result["reasons"].items()
        )
        lines.append(f"| `{kind}` | {result['cls']} | {levels[kind]} | {' | '.join(errors)} | {reason} |")
    return "\n".join(lines) + "\n"


def level(result: Mapping[str, Any]) -> str:
    """How far a type is supported."""
    if "trtllm" in result["targets"]:
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
    parser.add_argument("--page", action="store_true", help="write the page alone")
    options = parser.parse_args()
    known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    every = sorted(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    for kind in [] if options.page else options.types or part_of(every, options.part):
        known[kind] = asdict(held(kind))
        print(f"{kind}: {level(known[kind])}", flush=True)
        RECORD.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(page(known))


if __name__ == "__main__":
    main()
