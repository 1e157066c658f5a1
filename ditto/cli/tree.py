"""A tree as text."""

from __future__ import annotations

from ditto.builders.room import size_text
from ditto.engine import EngineTree


def tree_text(tree: EngineTree) -> str:
    """The tree's files with their sizes, one a line, and what it was made from."""
    manifest = tree.manifest
    lines = [f"{tree.root}/   {manifest.model_type}, target {manifest.target}, {manifest.library or 'not compiled'}"]
    for name, component in manifest.components.items():
        layers = sum(component.layers.values())
        lines.append(f"  {name}: {component.dtype}, {layers} layers, profiles {', '.join(component.profiles)}")
    width = max((len(name) for name in manifest.files), default=0)
    lines += [f"    {name:<{width}}  {size_text(record.bytes):>9}" for name, record in manifest.files.items()]
    return "\n".join(lines)
