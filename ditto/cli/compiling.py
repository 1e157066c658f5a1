"""`ditto compile`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    text = (
        "Compile the engines of a tree that was described on another machine. Needs the target's library and the "
        "checkpoint, but no transformers. All engines are compiled, or the tree stays as it was."
    )
    parser = commands.add_parser("compile", help="compile the engines of a tree", description=text)
    parser.add_argument("tree", metavar="OUT", type=Path, help="a tree without compiled engines")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="where the checkpoint is here (default: where it was)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compile the tree's engines, and print the tree."""
    from ditto.cli.tree import next_command, tree_text
    from ditto.compiling import compile_tree

    tree = compile_tree(options.tree, options.checkpoint)
    if not options.quiet:
        print(tree_text(tree))
        print(f"next: {next_command(tree, options.tree)}")
    return 0
