"""`ditto run`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ditto.cli.console import show_json
from ditto.cli.generation import SAMPLING, add_sampling_options, add_session_options
from ditto.cli.startup import start_driver
from ditto.errors import PromptError
from ditto.files import open_regular


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    text = "Answer prompts about images: one answer per prompt, run as one batch."
    parser = commands.add_parser("run", help="answer prompts about images", description=text)
    parser.add_argument("tree", metavar="OUT", type=Path, help="an engine tree")
    parser.add_argument(
        "--image",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="images, in the order of the image tokens",
    )
    prompts = parser.add_mutually_exclusive_group(required=True)
    prompts.add_argument(
        "--prompt",
        nargs="+",
        action="extend",
        default=[],
        metavar="TEXT",
        help="prompts: plain text, or in the model's own form, image tokens included",
    )
    prompts.add_argument(
        "--prompt-file",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="files with a prompt each; - for stdin",
    )
    parser.add_argument(
        "--raw", action="store_true", help="pass plain text as it is, without the model's chat template"
    )
    add_session_options(parser)
    add_sampling_options(parser)
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end an answer before this text")
    parser.add_argument("--stream", action="store_true", help="print answers as they come")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one object: answers, tokens, session, seconds; with --stream, before it one for each piece",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one answer per line, or one JSON object."""
    prompts = [*options.prompt, *map(_prompt_of, options.prompt_file)]
    if options.session != "reference":
        start_driver()
    from attrs import asdict
    from loguru import logger

    from ditto.engine import EngineTree
    from ditto.runtime import open_session
    from ditto.text.chat import with_template
    from ditto.text.defaults import warn_of_idle_options
    from ditto.text.pipeline import GenerationPipeline
    from ditto.text.processing import RenderedPrompt

    session = open_session(EngineTree.open(options.tree), options.session)
    stream = _Stream(len(prompts), options.json)
    pipeline = GenerationPipeline(session, options.hf_model, with_defaults=not options.no_generation_defaults)
    asked = {name: getattr(options, name) for name in SAMPLING}
    sampling = pipeline.defaults.sampling(**asked)
    warn_of_idle_options(sampling, asked)
    images = options.image
    if not options.raw:
        prompts, images = with_template(pipeline.processor, pipeline.template, prompts, images)
        for number, prompt in enumerate(prompts, 1):
            written = isinstance(prompt, RenderedPrompt)
            logger.debug("prompt {}: {}", number, f"written as {prompt.text!r}" if written else "raw, passed as it is")
    reply = pipeline.answer(
        prompts,
        images,
        options.max_new_tokens,
        sampling,
        options.stop,
        *([stream.tell] if options.stream else []),
    )
    if options.json:
        show_json(asdict(reply), indent=None)
    elif options.stream:
        stream.end()
    else:
        print("\n".join(reply.answers))
    return 0


def _prompt_of(name: str) -> str:
    """The prompt in a file, without its last line break.

    Raises:
        PromptError: it cannot be read, or is not UTF-8.
    """
    try:
        if name == "-":
            data = sys.stdin.buffer.read()
        else:
            with open_regular(Path(name)) as file:
                data = file.read()
        return data.decode("utf-8").removesuffix("\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise PromptError(f"the prompt cannot be read: {reason}", where=name, remedy="give a text file") from error


class _Stream:
    """Streaming output of answers.

    Pieces as JSON objects, or the text of the first answer followed by the other answers.
    """

    def __init__(self, count: int, as_json: bool) -> None:
        self._pieces: list[list[str]] = [[] for _ in range(count)]
        self._as_json = as_json

    def tell(self, number: int, piece: str) -> None:
        """Print a piece of the first answer (with JSON, of any).

        Keep the others until the end.
        """
        if self._as_json:
            show_json({"number": number, "piece": piece}, indent=None)
            return
        self._pieces[number].append(piece)
        if number == 0:
            print(self._pieces[0][-1], end="", flush=True)

    def end(self) -> None:
        """Print the kept pieces."""
        print()
        for pieces in self._pieces[1:]:
            print("".join(pieces))
