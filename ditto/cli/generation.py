"""Options of commands that run a tree."""

from __future__ import annotations

import argparse

SAMPLING = ("temperature", "top_k", "top_p", "seed")
"""Names of the options of sampling."""


def add_session_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a tree is loaded."""
    parser.add_argument(
        "--session",
        choices=("auto", "tensorrt", "reference"),
        default="auto",
        help="what runs the tree: engines on the GPU, or PyTorch on the CPU (default auto)",
    )
    parser.add_argument(
        "--hf-model", metavar="MODEL", help="directory or hub id with the processor (default: the tree's)"
    )
    parser.add_argument(
        "--no-generation-defaults",
        action="store_true",
        help="leave out what the model's generation_config.json asks for, but for its end tokens",
    )


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how an answer's tokens are chosen."""
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="per answer (default: the model's, else 128)")
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="sample; 0: the most likely token (default: the model's)"
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="sample among the K most likely tokens")
    parser.add_argument("--top-p", type=float, metavar="P", help="sample among tokens that together have probability P")
    parser.add_argument("--seed", type=int, metavar="N", help="of the random numbers of sampling (default 0)")
