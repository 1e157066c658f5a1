"""The body of a network is what is cut: no constants, no sizes, and first of all what no weight takes part in."""

from __future__ import annotations

from ditto.passes.body import Body, size_nodes
from ditto.passes.external_weights import ExternalWeights
from tests.support.passes import network_from

NETWORK = """
    input %x: float32[batch, 4]
    input %cache: float32[batch, 4]
    %a.0: float32[4, 4] = Constant(weight=w)
    %a.1: float32[batch, 4] = MatrixMultiply %x %a.0
    %a.2: float32[1, 4] = Constant(weight=literal 2)
    %a.3: int64[2] = Shape %x
    %a.4: int64[1] = Slice(start=(0), size=(1), stride=(1)) %a.3
    %a.5: float32[batch, 4] = ElementWise(op=PROD) %x %a.2
    %a.6: float32[batch, 4] = ElementWise(op=PROD) %cache %a.2
    %a.7: float32[batch, 4] = ElementWise(op=SUM) %a.1 %a.5
    %a.8: float32[batch, 4] = ElementWise(op=SUM) %a.7 %a.5
    %a.9: float32[1, 4] = Constant(weight=v)
    output y = %a.8
    output v = %a.9
    output present = %a.6 in %cache
"""


def body_of(text):
    network = network_from(text)
    return Body.of(network, ExternalWeights(network, 1))


def test_what_no_weight_takes_part_in_comes_first_but_for_caches():
    body = body_of(NETWORK)
    assert [node.outputs[0] for node in body.nodes] == ["a.5", "a.9", "a.1", "a.6", "a.7", "a.8"]
    assert body.index["a.7"] == 4
    assert body.readers["a.5"] == [4, 5]


def test_constants_and_sizes_are_no_part_of_it_unless_they_are_outputs():
    body = body_of(NETWORK)
    assert set(body.constants) == {"a.0", "a.2"}
    assert set(body.sizes) == {"a.3", "a.4"}
    assert [body.is_weight(name) for name in ("a.0", "a.2", "a.9", "a.5")] == [True, False, False, False]
    assert (body.whole_name("a.8"), body.whole_name("a.7")) == ("y", "a.7")


def test_a_size_that_is_an_output_is_computed_in_the_body():
    assert set(size_nodes(network_from(NETWORK + "    output size = %a.4\n"))) == {"a.3"}
    assert set(size_nodes(network_from(NETWORK + "    output shape = %a.3\n"))) == set()
