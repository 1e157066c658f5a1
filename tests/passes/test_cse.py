"""Equal layers with equal inputs become one; what is bound under two names stays two values."""

from __future__ import annotations

import torch

from ditto.network import Network, network_text
from ditto.network.layers import Cast, ElementWise, Softmax, Unary
from ditto.network.spec import Spec
from ditto.passes.cse import CommonSubexpressions
from tests.support.passes import check_pass, check_same, network_from

CSE = CommonSubexpressions()


def test_the_first_of_equal_layers_stays_and_what_reads_the_others_reads_it():
    result = check_pass(
        CSE,
        """
        input %x: float32[batch, 4]
        %a.0: float32[1, 4] = Constant(weight=scale)
        %a.1: float32[batch, 4] = ElementWise(op=PROD) %x %a.0
        %b.0: float32[1, 4] = Constant(weight=scale)
        %b.1: float32[batch, 4] = ElementWise(op=PROD) %x %b.0
        %b.2: float32[batch, 4] = Unary(op=EXP) %b.1
        %b.3: float32[batch, 4] = Unary(op=EXP) %a.1
        %b.4: float32[batch, 4] = ElementWise(op=SUM) %b.2 %b.3
        output y = %b.4
        """,
        """
        input %x: float32[batch, 4]
        %a.0: float32[1, 4] = Constant(weight=scale)
        %a.1: float32[batch, 4] = ElementWise(op=PROD) %x %a.0
        %b.2: float32[batch, 4] = Unary(op=EXP) %a.1
        %b.4: float32[batch, 4] = ElementWise(op=SUM) %b.2 %b.2
        output y = %b.4
        """,
    )
    assert result.applied == 3


def test_an_output_moves_to_the_first_of_equal_layers():
    check_pass(
        CSE,
        """
        input %x: float32[batch, 4]
        %a.0: float32[batch, 4] = Unary(op=EXP) %x
        %a.1: float32[batch, 4] = Unary(op=SIN) %a.0
        %a.2: float32[batch, 4] = Unary(op=EXP) %x
        output y = %a.1
        output z = %a.2
        """,
        """
        input %x: float32[batch, 4]
        %a.0: float32[batch, 4] = Unary(op=EXP) %x
        %a.1: float32[batch, 4] = Unary(op=SIN) %a.0
        output y = %a.1
        output z = %a.0
        """,
    )


def test_two_outputs_are_two_values_and_a_third_reader_takes_the_first():
    text = """
        input %x: float32[batch, 4]
        %a.0: float32[batch, 4] = Unary(op=EXP) %x
        %a.1: float32[batch, 4] = Unary(op=EXP) %x
        %a.2: float32[batch, 4] = Unary(op=EXP) %x
        %a.3: float32[batch, 4] = Unary(op=SIN) %a.2
        output {0} = %a.0
        output {1} = %a.1
        output {2} = %a.{3}
    """
    after = CSE.run(network_from(text.format("p", "q", "r", 3))).network
    assert [node.outputs[0] for node in after.nodes] == ["a.0", "a.1", "a.3"]
    assert after.nodes[-1].inputs == ("a.0",)
    three = network_from(text.format("p", "q", "r", 2))
    after = CSE.run(three).network
    check_same(three, after)
    assert len({*after.outputs.values()}) == 3


def test_a_layer_that_becomes_an_output_late_is_not_merged_with_another():
    """The first and the last of three are equal; the middle one, which is none of the outputs, does not hide that."""
    text = """
        input %x: float32[batch, 4]
        %a.0: float32[batch, 4] = Unary(op=EXP) %x
        %a.1: float32[batch, 4] = Unary(op=EXP) %x
        %a.2: float32[batch, 4] = Unary(op=EXP) %x
        output p = %a.1
        output q = %a.2
    """
    network = network_from(text)
    after = CSE.run(network).network
    check_same(network, after)
    assert after.outputs == {"p": "a.0", "q": "a.2"}


def test_inputs_in_another_order_and_other_fields_are_other_layers():
    network = Network("net")
    x = network.input("x", Spec((2, 3), torch.float32))
    y = network.add(Unary("EXP"), x)
    values = [
        network.add(ElementWise("SUB"), x, y),
        network.add(ElementWise("SUB"), y, x),
        network.add(Softmax(0), x),
        network.add(Softmax(1), x),
        network.add(Cast(torch.float16), x),
        network.add(Cast(torch.bfloat16), x),
        network.add(Softmax(1), y),
    ]
    for index, value in enumerate(values):
        network.output(f"y{index}", value)
    result = CSE.run(network)
    assert result.applied == 0
    assert network_text(result.network) == network_text(network)


def test_equal_literals_are_one():
    network = network_from("""
        input %x: float32[2]
        %a.0: float32[2] = Constant(weight=literal 2)
        %a.1: float32[2] = Constant(weight=literal 2)
        %a.2: float32[2] = Constant(weight=literal 3)
        %a.3: float32[2] = ElementWise(op=SUM) %a.0 %a.1
        %a.4: float32[2] = ElementWise(op=SUM) %a.3 %a.2
        output y = %a.4
    """)
    result = CSE.run(network)
    check_same(network, result.network)
    assert (result.applied, len(result.network.constants())) == (1, 2)
