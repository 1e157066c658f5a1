"""Embeddings of an image of any resolution from those of its tiles."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ditto.engine.assembly import Assembly


def assemble(assembly: Assembly, tiles: Tensor, size: tuple[int, int], newline: Tensor) -> Tensor:
    """Embeddings of an image: the view of the whole image, then the grid row by row.

    Args:
        tiles: [tiles, rows, width], the view of the whole image first; it may be alone.
        size: height and width of the original image.
        newline: [width], the embedding that ends a row of the grid, or a view that is alone; or a part of it that
            stands there once for each of several layers.
    Returns:
        [image tokens, width].
    """
    newline = newline.to(tiles).repeat(tiles.shape[-1] // len(newline))
    if len(tiles) == 1:
        return torch.cat([tiles[0], newline[None]])
    (down, across), (top, left) = assembly.grid(*size), assembly.padding(*size)
    grid = tiles[1:].reshape(down, across, assembly.side, assembly.side, -1).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    grid = grid[top : len(grid) - top, left : grid.shape[1] - left]
    wanted = assembly.shrunk(*grid.shape[:2])
    if wanted != tuple(grid.shape[:2]):
        grid = interpolate(grid.permute(2, 0, 1)[None], wanted, mode="bilinear")[0].permute(1, 2, 0)
    lines = torch.cat([grid, newline.expand(len(grid), 1, -1)], dim=1)
    return torch.cat([tiles[0], lines.flatten(0, 1)])
