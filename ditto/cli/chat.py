"""`ditto chat`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditto.cli.console import show_error
from ditto.cli.generation import SAMPLING, add_sampling_options, add_session_options
from ditto.cli.startup import start_driver
from ditto.errors import ConfigError, DittoError

if TYPE_CHECKING:
    from ditto.text.model import Model

_HELP = "Ctrl-C stops an answer, Ctrl-D ends the conversation; /image FILE adds an image, /new begins anew."


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    text = "Talk with a model: a message per line, answers as they come. " + _HELP
    parser = commands.add_parser("chat", help="talk with a model in the terminal", description=text)
    parser.add_argument("tree", metavar="OUT", type=Path, help="an engine tree")
    parser.add_argument(
        "--image", nargs="+", action="extend", default=[], metavar="FILE", help="images of the first message"
    )
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before the conversation")
    add_session_options(parser)
    add_sampling_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Answer the lines of stdin until its end."""
    if options.session != "reference":
        start_driver()
    from ditto.text.defaults import warn_of_idle_options
    from ditto.text.model import load

    model = load(
        options.tree,
        session=options.session,
        processor=options.hf_model,
        generation_defaults=not options.no_generation_defaults,
        rows=1,
    )
    with model:
        model.require_chat_template()
        asked = {name: getattr(options, name) for name in SAMPLING}
        settings = {"max_new_tokens": options.max_new_tokens, **asked}
        sampling = model.settings(**settings).sampling  # a wrong one is said before the first message
        if sampling is not None:
            warn_of_idle_options(sampling, asked)
        talk = _Conversation(model, options.system, options.image, settings)
        if sys.stdin.isatty():
            print(_HELP, file=sys.stderr)
        for line in _lines():
            talk.take(line)
    return 0


class _Conversation:
    """Messages so far, and the images of the next one."""

    def __init__(self, model: Model, system: str | None, images: list[str], settings: dict[str, Any]) -> None:
        self._model, self._settings, self._images = model, settings, list(images)
        self._head = [] if system is None else [{"role": "system", "content": system}]
        self._messages: list[dict[str, Any]] = list(self._head)

    def take(self, line: str) -> None:
        """Obey a command, or answer a message."""
        command, _, rest = line.partition(" ")
        if command == "/image":
            if rest:
                self._images.append(rest.strip())
            else:
                show_error(ConfigError("/image names no file", remedy="write /image FILE"))
        elif command == "/new":
            self._messages = list(self._head)
        elif line:
            self._answer(line)

    def _answer(self, text: str) -> None:
        content: Any = text
        if self._images:
            images = [{"type": "image", "image": image} for image in self._images]
            content = [*images, {"type": "text", "text": text}]
        asked = [*self._messages, {"role": "user", "content": content}]
        pieces: list[str] = []
        try:
            stream = self._model.stream(asked, **self._settings)
            try:
                for piece in stream:
                    pieces.append(piece)
                    print(piece, end="", flush=True)
            except KeyboardInterrupt as error:
                if type(error) is not KeyboardInterrupt:  # the process is to end
                    raise
            finally:
                stream.close()
                print()
        except DittoError as error:
            show_error(error)
            self._images = []
            return
        self._images = []
        self._messages = [*asked, {"role": "assistant", "content": "".join(pieces)}]


def _lines() -> Iterator[str]:
    """Lines of stdin, with a prompt where it is a terminal."""
    is_terminal = sys.stdin.isatty()
    while True:
        try:
            if is_terminal:
                line = input("> ")
            else:
                line = sys.stdin.readline()
                if not line:
                    return
        except EOFError:
            print(file=sys.stderr)
            return
        except KeyboardInterrupt as error:
            if type(error) is not KeyboardInterrupt or not is_terminal:
                raise
            print("\nCtrl-D ends the conversation", file=sys.stderr)
            continue
        yield line.strip()
