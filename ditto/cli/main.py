"""The command line: parse, call the public API, show."""

from __future__ import annotations

import argparse
import gc
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import ditto
from ditto.cli import bench, build, compiling, doctor, inspect, plan, run, verify
from ditto.cli.console import show_error, showing
from ditto.cli.parsing import Parser
from ditto.cli.startup import collect_seldom, keep_bytecode
from ditto.cli.streams import checked_stdout, optional_stderr
from ditto.errors import DittoError


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    description = "Turn a Hugging Face vision-language model into TensorRT engines, and run them."
    made = argparse.ArgumentParser(prog="ditto", description=description)
    made.add_argument("--version", action="version", version=f"ditto {ditto.__version__}")
    _add_loudness(made, 0, False)
    commands = made.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in (build, plan, compiling, inspect, run, bench, verify, doctor):
        command.add_parser(commands)
    for command in commands.choices.values():  # behind the command they stand for the same
        _add_loudness(command, argparse.SUPPRESS, argparse.SUPPRESS)
    return made


def _add_loudness(parser: argparse.ArgumentParser, verbose: object, quiet: object) -> None:
    parser.add_argument("-v", "--verbose", action="count", default=verbose, help="say more; twice: everything")
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=quiet,
        help="say nothing but results that are asked for, and errors",
    )


def program() -> NoReturn:
    """The command line as a process of its own."""
    collect_seldom()
    keep_bytecode()
    code = main()
    gc.freeze()  # what is left goes with the process
    sys.exit(code)


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came: everything is undone as for Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for what the caller can put right, 1 for a failure, and 128 plus the
    signal's number for one that a signal ended."""
    with optional_stderr():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    try:
        with checked_stdout():
            options = parser().parse_args(arguments)
            with _signals(), showing(options.verbose, options.quiet):
                return options.run(options)
    except BrokenPipeError:  # whoever reads has seen enough (`| head`)
        return 128 + int(signal.SIGPIPE)
    except DittoError as error:
        show_error(error)
        return error.exit_code
    except OSError as error:  # of a file or a device that nobody expected to fail
        show_error(DittoError(error.strerror or str(error), where=error.filename))
        return DittoError.exit_code
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, _Terminated) else int(signal.SIGINT)
        print(f"error: ended by {signal.Signals(number).name}; nothing was written", file=sys.stderr)
        return 128 + number


@contextmanager
def _signals() -> Generator[None]:
    """Answer SIGTERM and SIGHUP as Ctrl-C is answered; a signal that is ignored (nohup) stays ignored."""

    def end(number: int, frame: object) -> None:
        del frame
        raise _Terminated(number)

    wanted = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        wanted = []  # Python hands signals to the main thread alone
    for number in wanted:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, signal.SIG_DFL)
