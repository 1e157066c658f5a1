"""Images of requests: data URLs, and addresses that the server's operator has allowed."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

from attrs import frozen
from typing_extensions import override

from ditto.errors import PromptError
from ditto.text.images import data_url_bytes, load_image

if TYPE_CHECKING:
    from PIL.Image import Image

_SECONDS = 10.0
_PIECE_BYTES = 1 << 16


@frozen
class MediaPolicy:
    """Which images a server reads.

    Args:
        domains: hosts of http and https addresses, exactly as written.
        directory: `file:` addresses lead below it; None allows none.
        max_bytes: of an image file.
        max_pixels: of all images of a request, before they are decoded.
    """

    domains: tuple[str, ...] = ()
    directory: Path | None = None
    max_bytes: int = 1 << 25
    max_pixels: int = 1 << 26

    def load(self, urls: Sequence[str]) -> list[Image]:
        """The images of a request.

        Raises:
            PromptError: an address is not allowed, or what it leads to is not an image or is too large.
        """
        images: list[Image] = []
        left = self.max_pixels
        for url in urls:
            images.append(load_image(self._content(url), left))
            left -= images[-1].width * images[-1].height
        return images

    def _content(self, url: str) -> bytes | Path:
        if url.startswith("data:"):
            if len(url) * 3 // 4 > self.max_bytes:
                raise self._too_large()
            return data_url_bytes(url)
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise PromptError("an image URL is not valid", remedy="give the image as a data URL") from error
        if parts.scheme == "file":
            return self._file(parts)
        if parts.scheme not in ("http", "https"):
            raise PromptError("an image URL is neither data:, http:, https: nor file:", remedy="give a data URL")
        return self._fetched(url)

    def check_host(self, url: str) -> None:
        """Check that an http or https address is allowed.

        Raises:
            PromptError: it is not.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or (parts.hostname or "") not in {one.lower() for one in self.domains}:
            raise PromptError(
                f"images of the host {parts.hostname or url[:100]!r} are not allowed",
                remedy="give the image as a data URL, or start the server with --allowed-media-domains",
            )

    def _fetched(self, url: str) -> bytes:
        self.check_host(url)
        end = time.monotonic() + _SECONDS
        content = bytearray()
        try:
            opener = urllib.request.build_opener(_SameRules(self))
            with opener.open(url, timeout=_SECONDS) as answer:
                while piece := answer.read1(_PIECE_BYTES):
                    content += piece
                    if len(content) > self.max_bytes:
                        raise self._too_large()
                    if time.monotonic() > end:
                        raise TimeoutError("it takes too long")
        except PromptError:
            raise
        except Exception as error:  # urllib raises exceptions of many types
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise PromptError(f"an image cannot be fetched: {reason}", remedy="give it as a data URL") from error
        return bytes(content)

    def _file(self, parts: SplitResult) -> Path:
        refused = PromptError(
            "this file is not allowed",
            remedy="give the image as a data URL, or start the server with --allowed-media-path",
        )
        if self.directory is None or parts.netloc not in ("", "localhost"):
            raise refused
        try:
            path, root = Path(unquote(parts.path)).resolve(), self.directory.resolve()
        except (OSError, ValueError) as error:
            raise refused from error
        if not path.is_relative_to(root):
            raise refused
        if path.is_file() and path.stat().st_size > self.max_bytes:
            raise self._too_large()
        return path

    def _too_large(self) -> PromptError:
        return PromptError(f"an image file has more than {self.max_bytes} bytes", remedy="send a smaller image")


class _SameRules(urllib.request.HTTPRedirectHandler):
    """Redirects lead only to allowed hosts."""

    def __init__(self, policy: MediaPolicy) -> None:
        self._policy = policy

    @override
    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> Any:
        self._policy.check_host(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
