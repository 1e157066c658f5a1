"""A running server, its clients, and questions about the bundled LLaVA's images as conversations."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ditto.serve.app import Server, ServerSettings
from ditto.serve.server import Process, listen
from ditto.text.model import Model
from examples.shapes_llava import scenes
from tests.support.shapes import Question

NAME = "shapes"


@contextmanager
def serving(model: Model, connections: int = 400, **settings: Any) -> Generator[tuple[str, Process]]:
    """A server on a free port: its address, and its process; the model is closed at the end."""
    opened = listen("127.0.0.1", 0)
    process = Process(Server(model, ServerSettings(NAME, **settings)), model, connections)
    thread = threading.Thread(target=process.serve_on, args=(opened,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}", process
    finally:
        process.stop()
        thread.join(60)
        assert not thread.is_alive()


def client(address: str, key: str = "none") -> Any:
    """The openai client, without repeats."""
    import openai

    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=300)


def data_url(path: Path) -> str:
    """An image file as a data URL."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def ask(text: str, *images: Path) -> list[dict[str, Any]]:
    """One message with images."""
    parts = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def bare(question: Question) -> str:
    """The question in a prompt of the training's forms."""
    for form in scenes.PROMPTS:
        found = re.fullmatch(re.escape(form).replace(re.escape("{q}"), "(.*)"), question.prompt)
        if found:
            return found[1]
    raise AssertionError(question.prompt)
