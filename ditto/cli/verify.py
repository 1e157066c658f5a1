"""`ditto verify`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ditto.cli.console import show_json


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    text = "Hold a tree against the model it came from: features, logits, tokens. Exit code 1 if they differ."
    parser = commands.add_parser("verify", help="compare a tree with its model", description=text)
    parser.add_argument("tree", metavar="OUT", type=Path, help="an engine tree")
    parser.add_argument(
        "--against", metavar="MODEL", help="directory or hub id (default: what the tree was built from)"
    )
    parser.add_argument("--session", choices=("auto", "reference", "tensorrt"), default="auto", help="what runs it")
    parser.add_argument(
        "--image",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="images (default: random images and prompts)",
    )
    parser.add_argument(
        "--prompt",
        nargs="+",
        action="extend",
        metavar="TEXT",
        help="each asked about each image (default: for a description)",
    )
    parser.add_argument("--max-new-tokens", type=int, default=16, metavar="N", help="per prompt (default 16)")
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print a table, or one JSON object."""
    from ditto.engine import EngineTree
    from ditto.errors import ConfigError
    from ditto.verify.check import verify
    from ditto.verify.inputs import about_images, mixed

    tree, count = EngineTree.open(options.tree), options.max_new_tokens
    if options.prompt is not None and not options.image:
        raise ConfigError("--prompt is asked about images, and there is none", remedy="give some with --image FILE")
    prompts = about_images(tree, options.image, options.prompt) if options.image else mixed(tree, count)
    result = verify(tree, prompts, options.against, options.session, count)
    if options.json:
        show_json(result.to_json())
    else:
        print(result.text())
    return 0 if result.passed else 1
