"""Layers that no output needs go; inputs stay."""

from __future__ import annotations

from ditto.passes.dead_layers import DeadLayers
from tests.support.passes import check_pass


def test_layers_that_no_output_needs_are_dropped_in_any_depth_and_inputs_stay():
    result = check_pass(
        DeadLayers(),
        """
        input %x: float32[2]
        input %unread: int32[2]
        input %cache: float32[2]
        %a.0: float32[2] = Unary(op=EXP) %x
        %a.1: float32[2] = Unary(op=ABS) %a.0
        %a.2: float32[2] = Unary(op=SIN) %a.1
        %a.3: float32[2] = ElementWise(op=SUM) %x %a.0
        %a.4: float32[2] = Unary(op=COS) %x
        output y = %a.3
        output present = %a.4 in %cache
        """,
        """
        input %x: float32[2]
        input %unread: int32[2]
        input %cache: float32[2]
        %a.0: float32[2] = Unary(op=EXP) %x
        %a.3: float32[2] = ElementWise(op=SUM) %x %a.0
        %a.4: float32[2] = Unary(op=COS) %x
        output y = %a.3
        output present = %a.4 in %cache
        """,
    )
    assert result.applied == 2


def test_a_constant_that_is_an_output_is_needed():
    text = """
        input %x: float32[2]
        %a.0: float32[3] = Constant(weight=w)
        output w = %a.0
    """
    assert check_pass(DeadLayers(), text, text).applied == 0
