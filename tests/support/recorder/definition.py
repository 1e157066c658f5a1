"""`INetworkDefinition` of TensorRT 10.9, strongly typed, as far as Ditto uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.support.recorder import shapes

Shape = tuple[int, ...]


class Refusal(Exception):
    """Something that TensorRT does not take."""


class Tensor:
    """`ITensor`."""

    def __init__(self, name: str, dtype: Any, shape: Callable[[], Shape], maker: Layer | None = None) -> None:
        self.name, self.dtype, self.maker, self.dimension_names = name, dtype, maker, dict[int, str]()
        self._rule = shape
        self._known: Shape | None = None

    @property
    def shape(self) -> Shape:
        if self._known is None:
            self._known = self._rule()
        return self._known

    def forget(self) -> None:
        """The layer that makes it has changed."""
        self._known = None

    def set_dimension_name(self, axis: int, name: str) -> None:
        if not 0 <= axis < len(self.shape):
            raise ValueError(f"{self.name} has no axis {axis}")
        self.dimension_names[axis] = name


class Layer:
    """`ILayer`: a kind, inputs by position, settings of that kind, outputs.

    Args:
        kind: after TensorRT's `add_...`.
        inputs: tensors.
        settings: attributes that may be set later.
        rules: dtype and shape rule of each output, of the layer as it is when asked.
    """

    def __init__(
        self,
        kind: str,
        inputs: Sequence[Tensor],
        settings: dict[str, Any],
        rules: Sequence[tuple[Any, Callable[[Layer], Shape]]],
    ) -> None:
        vars(self).update(kind=kind, inputs=dict(enumerate(inputs)), settings=settings, name="")
        made = [Tensor("", dtype, lambda rule=rule: rule(self), self) for dtype, rule in rules]
        vars(self)["outputs"] = made

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "name" and name not in self.settings:
            raise AttributeError(f"a {self.kind} layer of TensorRT has no {name}")
        if name == "name":
            vars(self)["name"] = value
        else:
            self.settings[name] = value
            self._forget()

    def set_input(self, index: int, tensor: Tensor) -> None:
        self.inputs[index] = tensor
        self._forget()

    def _forget(self) -> None:
        for output in self.outputs:
            output.forget()

    def get_output(self, index: int) -> Tensor:
        return self.outputs[index]

    def shape(self, index: int = 0) -> Shape:
        """The shape of an input."""
        return self.inputs[index].shape


class Definition:
    """`INetworkDefinition`.

    Args:
        trt: the stand-in for the module.
        log: of the builder.
    """

    def __init__(self, trt: Any, log: Any) -> None:
        self._trt, self._log = trt, log
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.layers: list[Layer] = []

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"TensorRT 10.9's network has no {name}, or the stand-in does not know it")

    def _add(self, kind: str, inputs: Sequence[Tensor], settings: dict[str, Any], *rules: Any) -> Layer | None:
        """A layer, or None and a logged error where its shape cannot be inferred from what is known at once."""
        layer = Layer(kind, inputs, settings, rules)
        self.layers.append(layer)
        return layer

    def _refuse(self, problem: str) -> None:
        self._log.log(self._trt.ILogger.Severity.ERROR, problem)

    def _same(self, kind: str, *tensors: Tensor) -> bool:
        if len({tensor.dtype for tensor in tensors}) == 1:
            return True
        self._refuse(f"{kind} needs equal types, has {', '.join(tensor.dtype.name for tensor in tensors)}")
        return False

    def add_input(self, name: str, dtype: Any, shape: Shape) -> Tensor | None:
        if any(tensor.name == name for tensor in self.inputs):
            return self._refuse(f"there is an input {name} already")
        self.inputs.append(Tensor(name, dtype, lambda: tuple(shape)))
        return self.inputs[-1]

    def mark_output(self, tensor: Tensor) -> None:
        self.outputs.append(tensor)

    def add_constant(self, shape: Shape, weights: Any) -> Layer | None:
        count = 1
        for size in shape:
            count *= size
        if count != weights.count:
            return self._refuse(f"{weights.count} numbers do not fill {shape}")
        return self._add("constant", [], {"weights": weights}, (weights.dtype, lambda _: tuple(shape)))

    def add_identity(self, x: Tensor) -> Layer | None:
        return self._add("identity", [x], {}, (x.dtype, lambda layer: layer.shape()))

    def add_cast(self, x: Tensor, dtype: Any) -> Layer | None:
        return self._add("cast", [x], {"to_type": dtype}, (dtype, lambda layer: layer.shape()))

    def add_unary(self, x: Tensor, op: Any) -> Layer | None:
        if (op.name == "NOT") != (x.dtype.name == "BOOL"):
            return self._refuse(f"unary {op.name} of {x.dtype.name}")
        if x.dtype.name in ("INT32", "INT64") and op.name not in ("ABS", "NEG", "SIGN"):
            return self._refuse(f"unary {op.name} of {x.dtype.name}")
        return self._add("unary", [x], {"op": op}, (x.dtype, lambda layer: layer.shape()))

    def add_activation(self, x: Tensor, function: Any) -> Layer | None:
        if x.dtype.name not in shapes.FLOATING:
            return self._refuse(f"activation {function.name} of {x.dtype.name}")
        settings = {"type": function, "alpha": 0.0, "beta": 0.0}
        return self._add("activation", [x], settings, (x.dtype, lambda layer: layer.shape()))

    def add_softmax(self, x: Tensor) -> Layer | None:
        return self._add("softmax", [x], {"axes": 1}, (x.dtype, lambda layer: layer.shape()))

    def add_elementwise(self, x: Tensor, y: Tensor, op: Any) -> Layer | None:
        if not self._same(f"elementwise {op.name}", x, y):
            return None
        logical = op.name in ("AND", "OR", "XOR")
        if logical != (x.dtype.name == "BOOL") and op.name != "EQUAL":
            return self._refuse(f"elementwise {op.name} of {x.dtype.name}")
        compared = op.name in ("EQUAL", "GREATER", "LESS")
        dtype = self._trt.DataType.BOOL if compared else x.dtype
        rule = lambda layer: shapes.broadcast(layer.shape(0), layer.shape(1))  # noqa: E731
        return self._add("elementwise", [x, y], {"op": op}, (dtype, rule))

    def add_select(self, condition: Tensor, x: Tensor, y: Tensor) -> Layer | None:
        if condition.dtype.name != "BOOL":
            return self._refuse(f"select by {condition.dtype.name}")
        if not self._same("select", x, y):
            return None
        rule = lambda layer: shapes.broadcast(*(layer.shape(index) for index in range(3)))  # noqa: E731
        return self._add("select", [condition, x, y], {}, (x.dtype, rule))

    def add_gather(self, x: Tensor, indices: Tensor, axis: int) -> Layer | None:
        if indices.dtype.name not in ("INT32", "INT64"):
            return self._refuse(f"gather by {indices.dtype.name}")
        settings = {"axis": axis, "num_elementwise_dims": 0}
        return self._add("gather", [x, indices], settings, (x.dtype, shapes.gather))

    def add_matrix_multiply(self, x: Tensor, op_x: Any, y: Tensor, op_y: Any) -> Layer | None:
        if not self._same("matrix multiply", x, y):
            return None
        settings = {"op0": op_x, "op1": op_y}
        return self._add("matrix_multiply", [x, y], settings, (x.dtype, shapes.matrix_multiply))

    def add_reduce(self, x: Tensor, op: Any, axes: int, keep_dims: bool) -> Layer | None:
        settings = {"op": op, "axes": axes, "keep_dims": keep_dims}
        return self._add("reduce", [x], settings, (x.dtype, shapes.reduce))

    def add_shuffle(self, x: Tensor) -> Layer | None:
        settings = {"first_transpose": None, "reshape_dims": None, "second_transpose": None}
        return self._add("shuffle", [x], settings, (x.dtype, shapes.shuffle))

    def add_slice(self, x: Tensor, start: Shape, shape: Shape, stride: Shape) -> Layer | None:
        if not len(start) == len(shape) == len(stride) == len(x.shape):
            return self._refuse(f"a slice of {x.shape} from {start}, {shape} by {stride}")
        settings = {"start": start, "shape": shape, "stride": stride}
        return self._add("slice", [x], settings, (x.dtype, shapes.slice_))

    def add_concatenation(self, inputs: Sequence[Tensor]) -> Layer | None:
        if not self._same("concatenation", *inputs):
            return None
        return self._add("concatenation", inputs, {"axis": 0}, (inputs[0].dtype, shapes.concatenation))

    def add_shape(self, x: Tensor) -> Layer | None:
        return self._add("shape", [x], {}, (self._trt.DataType.INT64, lambda layer: (len(layer.shape()),)))

    def add_fill(self, shape: Shape, op: Any, dtype: Any) -> Layer | None:
        rule = lambda layer: (-1,) * layer.shape(0)[0] if 0 in layer.inputs else tuple(shape)  # noqa: E731
        return self._add("fill", [], {"op": op}, (dtype, rule))

    def add_convolution_nd(self, x: Tensor, out: int, kernel_shape: Shape, kernel: Any, bias: Any = None) -> Layer:
        settings = {"stride_nd": (1, 1), "padding_nd": (0, 0), "dilation_nd": (1, 1), "num_groups": 1}
        settings |= {"num_output_maps": out, "kernel_size_nd": kernel_shape}
        return self._add("convolution", [x], settings, (x.dtype, shapes.convolution))

    def add_normalization(self, x: Tensor, scale: Tensor, bias: Tensor, axes: int) -> Layer | None:
        if not self._same("normalization", x, scale, bias):
            return None
        settings = {"axes": axes, "epsilon": 1e-5, "num_groups": 1, "compute_precision": self._trt.DataType.FLOAT}
        return self._add("normalization", [x, scale, bias], settings, (x.dtype, lambda layer: layer.shape()))

    def add_plugin_v2(self, inputs: Sequence[Tensor], plugin: Any) -> Layer | None:
        try:
            outputs = plugin.outputs(inputs, self.inputs)
        except Refusal as error:
            return self._refuse(str(error))
        return self._add("plugin_v2", inputs, {"plugin": plugin}, *outputs)
