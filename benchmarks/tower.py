"""The tower that builders are compared on, without what any one of them needs."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import override


class Tower(nn.Module):
    """Pixels to the last hidden state."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.tower = model

    @override
    def forward(self, pixels: Tensor) -> Tensor:
        return self.tower(pixels).last_hidden_state
