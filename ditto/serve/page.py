"""The page at `/`: ask the model about an image, in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from pathlib import Path

from starlette.responses import HTMLResponse

_PLACE = "/*model*/null"


def page(model: str) -> HTMLResponse:
    """The page for a model of this name; a browser runs and fetches only what is part of it, or of this server."""
    name = json.dumps(model).replace("<", "\\u003c")  # the name cannot end the script
    text = _source().replace(_PLACE, name)
    script, style = (re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("script", "style"))
    assert script is not None and style is not None
    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; script-src '{_hash(script[1])}'; "
        f"style-src '{_hash(style[1])}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    return HTMLResponse(text, headers=headers)


@cache
def _source() -> str:
    return Path(__file__).with_name("page.html").read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
