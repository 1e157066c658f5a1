"""`ditto run`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    text = "Answer prompts about pictures: one answer per prompt, run as one batch."
    parser = commands.add_parser("run", help="answer prompts about pictures", description=text)
    parser.add_argument("tree", metavar="OUT", type=Path, help="an engine tree")
    parser.add_argument(
        "--image", action="append", default=[], metavar="FILE", help="a picture, in the order of the image tokens"
    )
    parser.add_argument("--prompt", nargs="+", required=True, metavar="TEXT", help="prompts, image tokens included")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="per answer (default 128)")
    parser.add_argument(
        "--session",
        choices=("auto", "tensorrt", "reference"),
        default="auto",
        help="what runs the tree: engines on the GPU, or PyTorch on the CPU (default auto)",
    )
    parser.add_argument("--hf-model", metavar="MODEL", help="folder or hub id with the processor (default: the tree's)")
    parser.add_argument("--json", action="store_true", help="print one object: answers, tokens, session, seconds")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one answer per line, or one JSON object."""
    from attrs import asdict

    from ditto.engine import EngineTree
    from ditto.families.answering import Answerer
    from ditto.runtime import open_session

    session = open_session(EngineTree.open(options.tree), options.session)
    reply = Answerer(session, options.hf_model).answer(options.prompt, options.image, options.max_new_tokens)
    print(json.dumps(asdict(reply), ensure_ascii=False) if options.json else "\n".join(reply.answers))
    return 0
