"""The command line: parse arguments, call the public API, show results."""

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
from ditto.cli import bench, build, chat, compiling, doctor, inspect, plan, run, serve, verify
from ditto.cli.console import show_error, showing
from ditto.cli.parsing import Parser
from ditto.cli.startup import collect_seldom, keep_bytecode
from ditto.cli.streams import checked_stdout, optional_stderr
from ditto.errors import DittoError


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    description = "Turn a Hugging Face vision-language model into TensorRT engines, and run them."
    result = argparse.ArgumentParser(prog="ditto", description=description)
    result.add_argument("--version", action="version", version=f"ditto {ditto.__version__}")
    _add_verbosity(result, 0, False)
    commands = result.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in (build, plan, compiling, inspect, run, chat, serve, bench, verify, doctor):
        command.add_parser(commands)
    for command in commands.choices.values():  # these options are also accepted after the command
        _add_verbosity(command, argparse.SUPPRESS, argparse.SUPPRESS)
    return result


def _add_verbosity(parser: argparse.ArgumentParser, verbose: object, quiet: object) -> None:
    parser.add_argument("-v", "--verbose", action="count", default=verbose, help="say more; twice: everything")
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=quiet,
        help="say nothing but results that are asked for, and errors",
    )


def program() -> NoReturn:
    """Entry point of the `ditto` process."""
    collect_seldom()
    keep_bytecode()
    code = main()
    gc.freeze()  # remaining objects are freed with the process
    sys.exit(code)


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP was received; cleanup is the same as for Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0 for success, 2 for errors that the caller can fix, 1 for failures, 128 plus the signal number after a signal.
    """
    with optional_stderr():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    try:
        with checked_stdout():
            options = parser().parse_args(arguments)
            with _signals(), showing(options.verbose, options.quiet):
                return options.run(options)
    except BrokenPipeError:  # the reader has closed the pipe (`| head`)
        return 128 + int(signal.SIGPIPE)
    except DittoError as error:
        show_error(error)
        return error.exit_code
    except OSError as error:  # unexpected failure of a file or a device
        show_error(DittoError(error.strerror or str(error), where=error.filename))
        return DittoError.exit_code
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, _Terminated) else int(signal.SIGINT)
        print(f"error: ended by {signal.Signals(number).name}; nothing was written", file=sys.stderr)
        return 128 + number


@contextmanager
def _signals() -> Generator[None]:
    """Context that handles SIGTERM and SIGHUP like Ctrl-C.

    A signal that is ignored (nohup) stays ignored.
    """

    def end(number: int, frame: object) -> None:
        del frame
        raise _Terminated(number)

    wanted = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        wanted = []  # Python delivers signals only to the main thread
    for number in wanted:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, signal.SIG_DFL)
