"""Constants and identity."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.network.layer import Emitter, Layer
from ditto.network.spec import Spec
from ditto.network.weight import Weight, spec_of


@frozen
class Constant(Layer):
    """A weight, by reference; its values are loaded when the network is run or emitted.

    TensorRT: IConstantLayer, or a network input if weights are external.
    """

    weight: Weight

    @override
    def infer(self) -> Spec:
        return spec_of(self.weight)

    @override
    def reference(self, *, value: Tensor) -> Tensor:
        return value

    @override
    def emit(self, to: Emitter) -> Any:
        return to.constant(self.weight)


@frozen
class Identity(Layer):
    """The unchanged input, for outputs that are inputs or constants. TensorRT: IIdentityLayer."""

    @override
    def infer(self, x: Spec) -> Spec:
        return x

    @override
    def reference(self, x: Tensor) -> Tensor:
        return x

    @override
    def emit(self, to: Emitter, x: Any) -> Any:
        return to.made(to.net.add_identity(x)).get_output(0)
