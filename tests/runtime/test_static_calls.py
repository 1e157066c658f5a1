"""Schedule on memory that stays."""

from __future__ import annotations

import torch

from ditto.runtime.static_calls import StaticCall


class _Doubling:
    """An execution that doubles what it is bound to."""

    def bind(self, tensors):
        self.bound = tensors

    @property
    def stages(self):
        return (lambda: None, self.enqueue)

    def enqueue(self):
        torch.add(self.bound["x"], self.bound["x"], out=self.bound["y"])


def test_what_a_fixed_call_is_given_fills_the_beginning_of_memory_that_stays():
    bound = {"x": torch.zeros(3, 2), "y": torch.zeros(3, 2)}
    call = StaticCall(_Doubling(), bound)
    call({"x": torch.ones(3, 2)})
    call({"x": torch.full((2, 2), 5.0)})
    assert call.bound["y"] is bound["y"]
    assert bound["y"].tolist() == [[10.0, 10.0], [10.0, 10.0], [2.0, 2.0]]
