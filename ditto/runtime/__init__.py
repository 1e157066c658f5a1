"""Running engine trees."""

from ditto.runtime.generate import Answer, Batch, Flight, generate
from ditto.runtime.opening import open_session
from ditto.runtime.sampling import GREEDY, LogitsProcessor, Sampling
from ditto.runtime.session import Request, Session

__all__ = [
    "GREEDY",
    "Answer",
    "Batch",
    "Flight",
    "LogitsProcessor",
    "Request",
    "Sampling",
    "Session",
    "generate",
    "open_session",
]
