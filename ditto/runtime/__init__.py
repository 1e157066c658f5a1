"""Running engine trees."""

from ditto.runtime.generate import Answer, Batch, generate
from ditto.runtime.opening import open_session
from ditto.runtime.session import Request, Session

__all__ = ["Answer", "Batch", "Request", "Session", "generate", "open_session"]
