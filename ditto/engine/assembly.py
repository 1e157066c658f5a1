"""Assembly of tiles into the embeddings of an image of any resolution: its sizes, as the tree records them."""

from __future__ import annotations

import math
from collections.abc import Iterator

from attrs import frozen

from ditto.errors import ConfigError

NEWLINE = "image_newline"
NEWLINE_FILE = "image_newlines.safetensors"
"""File beside the vision engine that holds the newline embedding (contract, multimodal 1.1)."""

# An image is shrunk when its sides are longer by this factor than those of the allowed embeddings.
_TOLERATED = 1.1


@frozen(kw_only=True)
class Assembly:
    """How tiles become the embeddings of an image of any resolution.

    An image is resized to fit into one of several sizes, padded, and cut into a grid of tiles. A view of the whole
    image is one more tile, the first. The embeddings of the padding are dropped, and the newline embedding ends each
    row.

    Args:
        tile: side of a tile, in pixels.
        side: embeddings along a side of a tile.
        sizes: heights and widths to choose from, in pixels; the first of equally good ones is chosen.
        shrink_above: embeddings of more tiles than this are resized to about as many; None to keep all.
    Raises:
        ConfigError: a value is out of range, or tiles do not fill a size.
    """

    tile: int
    side: int
    sizes: list[list[int]]
    shrink_above: int | None = None

    def __attrs_post_init__(self) -> None:
        if min(self.tile, self.side, 1 if self.shrink_above is None else self.shrink_above) < 1 or not self.sizes:
            raise ConfigError(
                f"images cannot be assembled from tiles of {self.tile} pixels and {self.side} embeddings for "
                f"{len(self.sizes)} sizes",
                remedy="check image_size, patch_size and image_grid_pinpoints in config.json",
            )
        for size in self.sizes:
            if len(size) != 2 or any(length < 1 or length % self.tile for length in size):
                raise ConfigError(
                    f"tiles of {self.tile} pixels do not fill an image of {size}",
                    remedy="give heights and widths that are multiples of the tile in image_grid_pinpoints",
                )

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles for an image: of the size that keeps most of its pixels and wastes least."""

        def worth(size: list[int]) -> tuple[int, int]:
            scale = min(size[1] / width, size[0] / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            return kept, kept - size[0] * size[1]

        best = max(self.sizes, key=worth)
        return best[0] // self.tile, best[1] // self.tile

    def tiles(self, height: int, width: int) -> int:
        """Tiles of an image, the view of the whole image included."""
        return math.prod(self.grid(height, width)) + 1

    def padding(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of embeddings that are padding, on each side."""
        rows, columns = (self.side * count for count in self.grid(height, width))
        # Rounded, because the processor's sizes must not depend on the last bit of a quotient.
        if width / height > columns / rows:
            return (rows - int(round(height * (columns / width), 7))) // 2, 0
        return 0, (columns - int(round(width * (rows / height), 7))) // 2

    def shrunk(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of embeddings that remain of so many."""
        if self.shrink_above is None:
            return rows, columns
        ratio = math.sqrt(rows * columns / (self.shrink_above * self.side**2))
        return (int(rows // ratio), int(columns // ratio)) if ratio > _TOLERATED else (rows, columns)

    def rows(self, height: int, width: int) -> int:
        """Embeddings of an image, those of the whole view and of newlines included."""
        (down, across), (top, left) = self.grid(height, width), self.padding(height, width)
        return self._rows(down * self.side - 2 * top, across * self.side - 2 * left)

    @property
    def rows_of_view(self) -> int:
        """Embeddings of an image that is not cut into tiles, the newline included."""
        return self.side**2 + 1

    def most_rows(self, most_tiles: int) -> int:
        """Embeddings of one image at most.

        Args:
            most_tiles: sizes of more tiles, the view of the whole image included, are left out.
        Raises:
            ConfigError: none is left.
        """
        found = max((self._rows(*shape) for shape in self._shapes(most_tiles)), default=None)
        if found is None:
            fewest = min(math.prod(size) // self.tile**2 for size in self.sizes) + 1
            raise ConfigError(
                f"{most_tiles} tiles per image are too few: the model cuts each image into at least {fewest}",
                remedy=f"give at least {fewest} with --max-tiles",
            )
        return found

    def _shapes(self, most_tiles: int) -> Iterator[tuple[int, int]]:
        """Rows and columns of embeddings of images of any shape, without padding."""
        for height, width in self.sizes:
            rows, columns = (length // self.tile * self.side for length in (height, width))
            if height * width // self.tile**2 + 1 <= most_tiles:
                yield from ((rows - 2 * padding, columns) for padding in range(rows // 2 + 1))
                yield from ((rows, columns - 2 * padding) for padding in range(columns // 2 + 1))

    def _rows(self, rows: int, columns: int) -> int:
        rows, columns = self.shrunk(rows, columns)
        return self.side**2 + rows * (columns + 1)
