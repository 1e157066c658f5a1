"""Digest of the code that turns a network into an engine: its meaning, without comments and docstrings.

An engine of an old tree may be reused while this code means the same. Code that makes networks is not part of it, as
the network itself is part of the cache key.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from inspect import getsource
from pathlib import Path
from textwrap import dedent

import ditto
from ditto.targets import Target

# Entry points, relative to the package: emission and compilation, partition, plugin layers, and checkpoint tensors.
_ENTRIES = ("targets/compile.py", "passes/partition.py", "targets/trtllm/plugins/*.py", "checkpoint/reader.py")
# Packages whose modules take part if an entry point imports them. Others only measure, report and write files.
_PACKAGES = ("network", "passes", "targets", "checkpoint")


def code_digest(target: Target) -> str:
    """Digest of the code that turns a network into an engine of a target."""
    digest = hashlib.sha256(_files_digest(Path(ditto.__file__).parent).encode())
    digest.update(meaning(dedent(getsource(type(target).compile))).encode())
    return digest.hexdigest()[:16]


def meaning(source: str) -> str:
    """A source text without comments, docstrings and layout: equal for texts that do the same."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            match node.body:
                case [ast.Expr(ast.Constant(str())), *others]:
                    node.body = others or [ast.Pass()]
                case _:
                    pass
    return ast.dump(tree)


def engine_modules(root: Path) -> list[Path]:
    """The modules that turn a network into an engine: the entry points and what they import, in a fixed order.

    Args:
        root: directory of the package.
    """
    waiting = [path for entry in _ENTRIES for path in root.glob(entry)]
    found = set(waiting)
    while waiting:
        for path in _imported(root, ast.parse(waiting.pop().read_bytes())):
            if path not in found and path.relative_to(root).parts[0] in _PACKAGES:
                found.add(path)
                waiting.append(path)
    return sorted(found)


@cache
def _files_digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in engine_modules(root):
        text = meaning(path.read_text(encoding="utf-8"))
        digest.update(f"{path.relative_to(root).as_posix()}\0{text}\0".encode())
    return digest.hexdigest()


def _imported(root: Path, tree: ast.Module) -> Iterator[Path]:
    """Files of the package that a module imports."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            package, *rest = name.split(".")
            if package != "ditto" or not rest:
                continue
            place = root.joinpath(*rest)
            yield from (path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file())
