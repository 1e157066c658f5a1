"""The tasks to measure, within the limits of a tree."""

from __future__ import annotations

from attrs import evolve, frozen

from ditto.engine import EngineTree
from ditto.errors import ConfigError
from ditto.runtime.session import RequestLimits
from ditto.verify.inputs import rows_per_image

VISION, PREFILL, DECODE, ANSWER = "vision", "prefill", "decode", "answer"


@frozen
class Task:
    """One measurement.

    Args:
        kind: `vision`: images to features; `prefill`: a prompt to its first token; `decode`: one more token per row;
            `answer`: an image and a prompt to `new_tokens` tokens, end to end.
        batch: images, or rows.
        context: tokens of each prompt, 0 for vision.
        new_tokens: of each row.
    """

    kind: str
    batch: int
    context: int = 0
    new_tokens: int = 0


@frozen
class Plan:
    """What to measure. Empty tuples select values that suit the tree.

    Args:
        batches: rows and images per call.
        contexts: tokens of the prompts.
        new_tokens: steps that decode is averaged over, and tokens of an answer.
        repeats: of each measurement, at most; the median is reported.
        seconds: after this, no measurement of a baseline is started.
    """

    batches: tuple[int, ...] = ()
    contexts: tuple[int, ...] = ()
    new_tokens: int = 128
    repeats: int = 5
    seconds: float = 420.0

    def fitted(self, tree: EngineTree) -> Plan:
        """The plan with all values resolved.

        Raises:
            ConfigError: it exceeds the limits of the tree.
        """
        if min(self.repeats, self.new_tokens) < 1:
            raise ConfigError(
                f"{self.repeats} repeats of {self.new_tokens} new tokens are nothing to measure",
                remedy="ask for at least one with --repeats and --new-tokens",
            )
        limits = RequestLimits.of(tree)
        wrong = [size for size in self.batches if not 1 <= size <= limits.max_batch_size]
        if wrong:
            raise ConfigError(
                f"batch {wrong[0]} is outside of the engine's range: 1 to {limits.max_batch_size}",
                remedy="choose others with --batch, or build with a larger --batch",
            )
        batches = self.batches or tuple(sorted({1, min(4, limits.max_batch_size), limits.max_batch_size}))
        room = min(limits.max_input_len, limits.max_seq_len - self.new_tokens - 1)
        too_long = [size for size in self.contexts if not 1 <= size <= room]
        if too_long or room < 1:
            length = too_long[0] if too_long else 1
            raise ConfigError(
                f"a prompt of {length} tokens with {self.new_tokens} new ones exceeds the limits of the engine",
                remedy=f"it accepts prompts of {limits.max_input_len} and sequences of {limits.max_seq_len} tokens: "
                "lower --context or --new-tokens",
            )
        contexts = self.contexts or tuple(sorted({min(600, room), *([room] if room >= 1200 else [])}))
        return evolve(self, batches=batches, contexts=contexts)

    def tasks(self, tree: EngineTree) -> list[Task]:
        """The measurements, in order."""
        made: list[Task] = []
        limits = RequestLimits.of(tree)
        rows = rows_per_image(tree)
        if rows:
            made += [Task(VISION, size) for size in self.batches if size <= tree.max_images]
        for context in self.contexts:
            made += [Task(PREFILL, size, context, 1) for size in self.batches]
            made += [Task(DECODE, size, context, self.new_tokens) for size in self.batches]
        context = rows + 24
        fits = context <= limits.max_input_len and context + self.new_tokens <= limits.max_seq_len
        batch = min(2, limits.max_batch_size)
        if rows and fits and batch * rows <= limits.max_prompt_embedding_table_size:
            made.append(Task(ANSWER, batch, context, self.new_tokens))
        return made
