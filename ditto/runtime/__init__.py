"""Sessions that run engine trees."""

from ditto.runtime.generate import Answer, Batch, SequenceState, generate
from ditto.runtime.opening import open_session
from ditto.runtime.sampling import GREEDY, LogitsProcessor, Sampling, TokenLogprobs
from ditto.runtime.session import Request, Session

__all__ = [
    "GREEDY",
    "Answer",
    "Batch",
    "LogitsProcessor",
    "Request",
    "Sampling",
    "SequenceState",
    "Session",
    "TokenLogprobs",
    "generate",
    "open_session",
]
