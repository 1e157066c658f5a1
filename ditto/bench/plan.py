"""What is measured, cut to what a tree takes."""

from __future__ import annotations

from attrs import evolve, frozen

from ditto.engine import EngineTree
from ditto.errors import ConfigError
from ditto.runtime.session import RequestLimits
from ditto.verify.inputs import rows_per_picture

VISION, PREFILL, DECODE, ANSWER = "vision", "prefill", "decode", "answer"


@frozen
class Task:
    """One thing to measure.

    Args:
        kind: `vision`: pictures to features; `prefill`: a prompt to its first token; `decode`: one more token of each
            row; `answer`: a picture and a prompt to `new_tokens` tokens, end to end.
        batch: pictures, or rows.
        context: tokens of each prompt, 0 for vision.
        new_tokens: of each row.
    """

    kind: str
    batch: int
    context: int = 0
    new_tokens: int = 0


@frozen
class Plan:
    """What to measure. Empty tuples and 0 stand for what suits the tree.

    Args:
        batches: rows and pictures per call.
        contexts: tokens of the prompts.
        new_tokens: that decoding is measured over, and of an answer.
        repeats: of each measurement at most; the median counts.
        seconds: after which no measurement of a rival begins.
    """

    batches: tuple[int, ...] = ()
    contexts: tuple[int, ...] = ()
    new_tokens: int = 128
    repeats: int = 5
    seconds: float = 420.0

    def fitted(self, tree: EngineTree) -> Plan:
        """The plan with everything decided.

        Raises:
            ConfigError: it asks for more than the tree takes.
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
                f"a batch of {wrong[0]} is not what the engine takes: 1 to {limits.max_batch_size}",
                remedy="choose others with --batch, or build with a larger --batch",
            )
        batches = self.batches or tuple(sorted({1, min(4, limits.max_batch_size), limits.max_batch_size}))
        room = min(limits.max_input_len, limits.max_seq_len - self.new_tokens - 1)
        too_long = [size for size in self.contexts if not 1 <= size <= room]
        if too_long or room < 1:
            raise ConfigError(
                f"a prompt of {too_long[0] if too_long else 1} tokens and {self.new_tokens} new ones are more than the "
                "engine takes",
                remedy=f"it takes prompts of {limits.max_input_len} and sequences of {limits.max_seq_len} tokens: "
                "choose with --context and --new-tokens",
            )
        contexts = self.contexts or tuple(sorted({min(600, room), *([room] if room >= 1200 else [])}))
        return evolve(self, batches=batches, contexts=contexts)

    def tasks(self, tree: EngineTree) -> list[Task]:
        """The measurements, in order."""
        made: list[Task] = []
        limits = RequestLimits.of(tree)
        rows = rows_per_picture(tree)
        if rows:
            at_once = tree.config("vision")["builder_config"]["max_batch_size"]
            made += [Task(VISION, size) for size in self.batches if size <= at_once]
        for context in self.contexts:
            made += [Task(PREFILL, size, context, 1) for size in self.batches]
            made += [Task(DECODE, size, context, self.new_tokens) for size in self.batches]
        context = rows + 24
        fits = context <= limits.max_input_len and context + self.new_tokens <= limits.max_seq_len
        batch = min(2, limits.max_batch_size)
        if rows and fits and batch * rows <= limits.max_prompt_embedding_table_size:
            made.append(Task(ANSWER, batch, context, self.new_tokens))
        return made
