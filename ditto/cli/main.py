"""The command line: parse, call the public API, show."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ditto.cli import build, doctor, run
from ditto.cli.console import show_error, stage_lines, start_logging
from ditto.errors import DittoError


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    description = "Turn a Hugging Face vision-language model into TensorRT engines, and run them."
    made = argparse.ArgumentParser(prog="ditto", description=description)
    made.add_argument("-v", "--verbose", action="count", default=0, help="say more; twice: everything")
    made.add_argument("-q", "--quiet", action="store_true", help="say nothing but results and errors")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    for command in (build, run, doctor):
        command.add_parser(commands)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for what the caller can put right, 1 for a failure."""
    options = parser().parse_args(arguments)
    start_logging(options.verbose, options.quiet)
    try:
        with stage_lines(options.quiet):
            return options.run(options)
    except DittoError as error:
        show_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written", file=sys.stderr)
        return 130
