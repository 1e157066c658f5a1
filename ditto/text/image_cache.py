"""Cache of image embeddings: an image that is sent again is not encoded again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor

from ditto.runtime import Session
from ditto.runtime.encoding import EncoderItem


class ImageCache:
    """Image embeddings by the content of the vision engine's inputs, in the computer's memory.

    Args:
        session: encodes what the cache lacks.
        max_bytes: of all embeddings; the one used least recently makes room. 0 for no cache.
    """

    def __init__(self, session: Session, max_bytes: int) -> None:
        self._session, self._max_bytes = session, max_bytes
        self._entries: OrderedDict[bytes, Tensor] = OrderedDict()
        self.queries = self.hits = self.bytes = 0

    @property
    def enabled(self) -> bool:
        """Whether anything is kept."""
        return self._max_bytes > 0

    def embeddings(self, items: Sequence[EncoderItem]) -> list[Tensor]:
        """Image embeddings of each item, as `Session.embeddings` returns them.

        Raises:
            PromptError: an item does not match the engine's inputs.
        """
        if not self.enabled:
            return self._session.embeddings(items)
        found: dict[bytes, Tensor] = {}
        missing: dict[bytes, EncoderItem] = {}
        for item in items:
            if item.digest in self._entries:
                self._entries.move_to_end(item.digest)
                found[item.digest] = self._entries[item.digest]
            else:
                missing[item.digest] = item
        new = dict(zip(missing, self._session.embeddings(list(missing.values())), strict=True))
        device = next((rows.device for rows in new.values()), self._session.device)
        self.queries += len(items)
        self.hits += len(items) - len(new)
        for digest, rows in new.items():
            self._keep(digest, rows)
        return [new[item.digest] if item.digest in new else found[item.digest].to(device, copy=True) for item in items]

    def _keep(self, digest: bytes, rows: Tensor) -> None:
        size = rows.nbytes
        if size > self._max_bytes:
            return
        while self.bytes + size > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= oldest.nbytes
        # A copy: the rows may be a view of a whole batch, which would stay in memory with them.
        self._entries[digest] = rows.detach().to("cpu", copy=True)
        self.bytes += size
