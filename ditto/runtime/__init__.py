"""Running engine trees."""

from ditto.runtime.generate import Answer, Batch, Flight, generate
from ditto.runtime.opening import open_session
from ditto.runtime.sampling import GREEDY, Sampling
from ditto.runtime.session import Request, Session

__all__ = ["GREEDY", "Answer", "Batch", "Flight", "Request", "Sampling", "Session", "generate", "open_session"]
