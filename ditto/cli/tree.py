"""Text output for engine trees."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditto.configs.build import PRESETS
from ditto.engine import EngineTree, Manifest
from ditto.units import size_text

if TYPE_CHECKING:
    from ditto.runtime.inspection import EngineReport


def tree_text(tree: EngineTree) -> str:
    """The tree's files with sizes, one per line, and the tree's origin."""
    manifest = tree.manifest
    lines = [f"{tree.root}/   {manifest.model_type}, target {manifest.target}, {manifest.library or 'not compiled'}"]
    for name, component in manifest.components.items():
        layers = sum(component.layers.values())
        profiles = ", ".join(profile.label() for profile in component.spec.profiles)
        lines.append(f"  {name}: {component.spec.dtype}, {layers} layers, profiles {profiles}")
    sizes = {name: record.bytes for name, record in manifest.files.items()}
    for name, component in manifest.components.items():
        files = [tree.listed(name, file) for file in component.engine_files]
        if len(files) > 1:
            sizes[f"{files[0]} and {len(files) - 1} more"] = sum(sizes.pop(file) for file in files)
    width = max(map(len, sizes), default=0)
    lines += [f"    {name:<{width}}  {size_text(size):>9}" for name, size in sorted(sizes.items())]
    return "\n".join(lines)


def identity(manifest: Manifest) -> dict[str, str]:
    """Origin of the tree: model, checkpoint, and the software that built it."""
    entries = {
        "model": manifest.model,
        "target": f"{manifest.target}, {manifest.library or 'engines are not compiled yet'}",
        "built with": ", ".join(
            f"{name} {version}" for name, version in {"ditto": manifest.ditto, **manifest.versions}.items()
        ),
    }
    stated = next((manifest.settings[each.spec.part] for each in manifest.components.values()), {})
    entries["settings"] = ", ".join(f"{name} {stated[name]}" for name in ("optimize", *PRESETS["portable"]))
    if manifest.checkpoint is not None:
        entries["checkpoint"] = f"{manifest.checkpoint.directory} ({manifest.checkpoint.identity[:12]})"
    entries["unused"] = f"{len(manifest.unused)} checkpoint tensors" + (
        f": {', '.join(manifest.unused[:5])}{' ...' if len(manifest.unused) > 5 else ''}" if manifest.unused else ""
    )
    return entries


def unused_line(unused: Sequence[str]) -> str:
    """Number of checkpoint tensors that no engine uses, and the first of them."""
    count = f"{len(unused)} tensor{'s' if len(unused) > 1 else ''}"
    return f"not used by any engine: {count}, e.g. {unused[0]}"


def fact_text(value: Any) -> str:
    """Text of a configuration value; repetitions in a list are counted."""
    if not isinstance(value, list) or len(value) < 4:
        return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
    counts = {str(item): value.count(item) for item in value}
    return ", ".join(f"{count} x {item}" for item, count in counts.items())


def engine_text(engine: EngineReport) -> str:
    """Size of an engine, and its number of parts."""
    count = len(engine.record.engine_files)
    if not count:
        return "not compiled yet"
    return size_text(engine.engine_bytes) + (f" in {count} parts" if count > 1 else "")


def build_record(tree: EngineTree, out: Path, seconds: float) -> dict[str, Any]:
    """Record of a build for `--json`. Sizes are in bytes."""
    manifest = tree.manifest
    return {
        "tree": str(out),
        "target": manifest.target,
        "library": manifest.library,
        "seconds": seconds,
        "peak_bytes": max((stage["peak_bytes"] for stage in manifest.stages), default=0),
        "reused": [stage["detail"] for stage in manifest.stages if stage["name"] == "reuse"],
        "engines": {name: component.engines for name, component in manifest.components.items()},
        "stages": manifest.stages,
        "files": {name: record.bytes for name, record in manifest.files.items()},
        "unused": manifest.unused,
        "next": next_command(tree, out),
    }


def next_command(tree: EngineTree, out: Path) -> str:
    """Suggested next command for a new tree."""
    place, components = shlex.quote(str(out)), tree.manifest.components
    if any(not component.engines for component in components.values()):
        return f"ditto compile {place}  # where the target's library is"
    if "llm" not in components:
        return f"ditto inspect {place}"
    prompt = "--image FILE --prompt TEXT" if "vision" in components else "--prompt TEXT"
    return f"ditto run {place} {prompt}"
