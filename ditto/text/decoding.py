"""Decoding of prepared prompts: rows that answers join and leave, and their text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen
from typing_extensions import Self

from ditto.errors import DittoError, as_ditto
from ditto.runtime import Batch, Request, Sampling, SequenceState, Session
from ditto.text.detokenizer import IncrementalDetokenizer
from ditto.text.token_report import ReportedToken, TokenReporter, TokenTexts

Tell = Callable[[str], None]

STOP, LENGTH = "stop", "length"
"""Why an answer ended: at an end token or a stop string, or at its limit."""


@frozen(eq=False)
class PreparedPrompt:
    """A prompt whose images are embedded, and the settings of its answer.

    Args:
        max_new_tokens: limit of the answer.
        stops: strings that end the answer; they are not part of it.
        draw: which random numbers of the seed the answer gets.
        strip: whether the text comes without white space at both ends.
    """

    request: Request
    max_new_tokens: int
    sampling: Sampling
    stops: tuple[str, ...] = ()
    draw: int = 0
    strip: bool = True


@define(eq=False)
class AnswerState:
    """An answer in progress.

    Args:
        tell: called with each new piece of its text.
        reported: what is known of its tokens so far; empty if the request does not ask for it.
        finish_reason: `STOP` or `LENGTH`; None while it is in progress, and if it failed or was cancelled.
    """

    prompt: PreparedPrompt
    tell: Tell
    _sequence: SequenceState
    _detokenizer: IncrementalDetokenizer
    _reporter: TokenReporter
    reported: list[ReportedToken] = field(factory=list)
    finish_reason: str | None = None
    _pieces: list[str] = field(factory=list)
    _held: str = ""  # white space that is part of the text only if more follows

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Tokens so far, the end token included."""
        return tuple(self._sequence.made)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._pieces)

    @property
    def done(self) -> bool:
        """Whether it is complete, was cancelled, or failed."""
        return self._sequence.done

    @property
    def error(self) -> DittoError | None:
        """Why it failed."""
        return self._sequence.error

    def add(self, piece: str) -> None:
        """Append a piece of text, and tell it."""
        if self.prompt.strip:
            piece = self._held + piece
            piece = piece if self._pieces else piece.lstrip()
            kept = piece.rstrip()
            piece, self._held = kept, piece[len(kept) :]
        if piece:
            self._pieces.append(piece)
            self.tell(piece)


class Decoder:
    """Rows of an engine that answers join and leave between steps.

    A context manager: its exit releases the rows.

    Args:
        session: runs the engines.
        tokenizer: Hugging Face's tokenizer.
        rows: maximum number of answers in progress.
    """

    def __init__(self, session: Session, tokenizer: Any, rows: int) -> None:
        self._session, self._tokenizer = session, tokenizer
        self._batch = Batch(session, rows)
        self._texts = TokenTexts(tokenizer)
        self._answers: dict[int, AnswerState] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._batch.__exit__()

    def __len__(self) -> int:
        return len(self._answers)

    def join(self, prompt: PreparedPrompt, tell: Tell) -> AnswerState:
        """Begin an answer.

        Raises:
            PromptError: the prompt exceeds a limit of the engine.
        """
        sequence = self._batch.join(prompt.request, prompt.max_new_tokens, prompt.sampling, prompt.draw)
        answer = AnswerState(
            prompt, tell, sequence, IncrementalDetokenizer(self._tokenizer, prompt.stops), TokenReporter(self._texts)
        )
        self._answers[sequence.number] = answer
        return answer

    def leave(self, answer: AnswerState) -> None:
        """End an answer with the text that it has so far."""
        self._batch.leave(answer._sequence)
        self._answers.pop(answer._sequence.number, None)

    def step(self) -> list[AnswerState]:
        """Compute one more token of every answer.

        Returns:
            Answers that have received a token or failed, oldest first.
        """
        moved = [self._answers[sequence.number] for sequence in self._batch.step()]
        for answer in moved:
            if answer.error is None:
                self._advance(answer)
            if answer.done:
                self.leave(answer)
        return moved

    def _advance(self, answer: AnswerState) -> None:
        sequence, detokenizer = answer._sequence, answer._detokenizer
        try:
            if sequence.logprobs:
                answer.reported.append(answer._reporter.add(sequence.made[-1], sequence.logprobs[-1]))
            pieces = [detokenizer.add(sequence.made[-1])]
            if sequence.done and not detokenizer.stopped:
                pieces.append(detokenizer.end())
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # of this answer alone; a panic of Rust's tokenizers is no Exception
            sequence.error = as_ditto(error)
            self._batch.leave(sequence)
            return
        if detokenizer.stopped:
            self._batch.leave(sequence)
        if sequence.done:
            ended = detokenizer.stopped or sequence.made[-1] in self._session.tokens.end
            answer.finish_reason = STOP if ended else LENGTH
        for piece in filter(None, pieces):
            answer.add(piece)
