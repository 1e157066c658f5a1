"""`ditto plan`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ditto.cli.build import add_settings, configured
from ditto.cli.console import show_json

if TYPE_CHECKING:
    from ditto.builders.plan import EnginePlan, Plan
    from ditto.engine import EngineSpec
    from ditto.families.multimodal import MultimodalModel


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    text = "Describe the engines of a build and the resources it needs, without reading weights: config.json is enough."
    parser = commands.add_parser("plan", help="describe a build and the resources it needs", description=text)
    add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print one object, sizes in bytes")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the plan; exit code 1 if the model cannot be built."""
    from attrs import asdict

    from ditto.builders.plan import plan
    from ditto.families.multimodal import MultimodalModel

    builder = configured(options)
    result = plan(builder.builders if isinstance(builder, MultimodalModel) else {builder.name: builder})
    images = _image_tokens(builder) if isinstance(builder, MultimodalModel) else {}
    if options.json:
        figures = {"weights": result.weights, "cache": result.cache, "warnings": result.warnings}
        show_json({**asdict(result), **figures, "image_tokens": images})
    else:
        print(plan_text(result))
        if images:
            print("\n".join(["", *listed("images", [f"{size}: {count} tokens" for size, count in images.items()])]))
    return 1 if result.refused else 0


# Heights and widths of the images that a plan counts tokens for.
_SIZES = ((336, 336), (480, 640), (1024, 768), (1080, 1920))


def _image_tokens(model: MultimodalModel) -> dict[str, int]:
    """Image tokens of an image by its size, width first; empty if the checkpoint has no processor that loads here."""
    from loguru import logger

    from ditto.errors import TreeError
    from ditto.text.processing import image_tokens

    directory = model.llm.source.places.get("the checkpoint")
    if directory is None:
        return {}
    try:
        counts = image_tokens(directory, model.preprocessor, _SIZES)
    except TreeError as error:
        logger.info("tokens of images are not known: {}", error.cause)
        return {}
    return {f"{width}x{height}": count for (height, width), count in counts.items()}


def plan_text(plan: Plan) -> str:
    """The plan as text for the terminal."""
    from ditto.builders.preflight import available_memory
    from ditto.cli.tree import unused_line
    from ditto.units import size_text

    lines = [f"{plan.model}   {plan.model_type}, target {plan.target}, {plan.dtype}, {plan.settings.text()}"]
    if plan.shapes != "checkpoint":
        lines.append("  shapes are those of config.json: the weights are not at hand")
    for name, engine in plan.engines.items():
        lines += ["", name, *_engine_lines(engine)]
    place = "compiled here" if plan.compiled else "described here, compiled where the target's library is"
    lines += [
        "",
        f"needs ({place}; at most)",
        f"  disk           {size_text(plan.disk)}",
        f"  memory         {size_text(plan.memory)}, available are {size_text(available_memory())}",
        f"  GPU, weights   {size_text(plan.weights)}",
        f"  GPU, KV cache  {size_text(plan.cache)}",
    ]
    lines += [f"  warning: {warning}" for warning in plan.warnings]
    if plan.unused:
        lines += ["", unused_line(plan.unused)]
    for refusal in plan.refused:
        lines += ["", f"cannot be built: {refusal.cause}"]
        lines += [f"  at: {place}" for place in refusal.places if place]
        lines += [f"  hint: {refusal.remedy}"] if refusal.remedy else []
    return "\n".join(lines)


def kinds_lines(kinds: Mapping[str, int]) -> list[str]:
    """A line with the bytes of each kind of weight; empty if none is quantised."""
    from ditto.units import size_text

    if not any(kind in ("int4", "int8") or kind.endswith("(dequantised)") for kind in kinds):
        return []
    return listed("weights", [", ".join(f"{kind} {size_text(size)}" for kind, size in kinds.items())])


def _engine_lines(engine: EnginePlan) -> list[str]:
    from ditto.units import size_text

    lines = [f"  parameters  {engine.parameters / 1e6:.1f} M, {size_text(engine.weights)} of weights"]
    lines += kinds_lines(engine.weight_kinds)
    for title, specs in (("inputs", engine.inputs), ("outputs", engine.outputs)):
        lines += listed(title, together(specs))
    lines += spec_lines(engine.spec)
    if engine.layers:
        kinds = sorted(engine.layers.items(), key=lambda item: -item[1])
        lines.append(f"  layers      {sum(engine.layers.values())}: {', '.join(f'{n} {kind}' for kind, n in kinds)}")
    return lines


def spec_lines(spec: EngineSpec) -> list[str]:
    """Decisions about an engine: profiles, weights, passes and settings other than the defaults."""
    from attrs import fields

    config = spec.tensorrt.builder_config
    changed = {
        each.name: getattr(config, each.name)
        for each in fields(type(config))
        if getattr(config, each.name) != each.default
    }
    settings = [f"weights {spec.weights}", f"tuning {spec.tuning}"]
    if spec.kv_length_step is not None:
        settings.append(f"KV cache read in steps of {spec.kv_length_step}")
    if spec.decode_attention is not None:
        settings.append(f"decode attention in {spec.decode_attention}")
    if spec.compute_capabilities:
        settings.append(f"for compute capability {', '.join(spec.compute_capabilities)}")
    settings += [f"{name} {value}" for name, value in changed.items()]
    lines = [f"  profile     {profile.phase.value}: {profile.ranges_text()}" for profile in spec.profiles]
    passes = ", ".join(each.text() for each in spec.passes)
    return [*lines, f"  passes      {passes}", f"  settings    {', '.join(settings)}"]


def listed(title: str, entries: list[str]) -> list[str]:
    """A title and indented entries below it."""
    return [f"  {title if not number else '':<10}  {entry}" for number, entry in enumerate(entries)]


def together(specs: Mapping[str, str]) -> list[str]:
    """Names and specs, with one entry for names that differ only in a number."""
    groups = grouped(specs)
    width = max((len(pattern) for pattern, _, _ in groups), default=0)
    return [
        f"{names[0] if len(names) == 1 else pattern:<{width}}  {spec}{f'   x {len(names)}' if len(names) > 1 else ''}"
        for pattern, spec, names in groups
    ]


def grouped(specs: Mapping[str, str]) -> list[tuple[str, str, list[str]]]:
    """Names with equal specs that differ only in a number.

    Tuples of (pattern, spec, names).
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for name, spec in specs.items():
        groups.setdefault((re.sub(r"\d+", "#", name), spec), []).append(name)
    return [(pattern, spec, names) for (pattern, spec), names in groups.items()]
