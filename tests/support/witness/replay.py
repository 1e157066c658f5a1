"""The walk over a definition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from graphlib import TopologicalSorter
from typing import Any

import tensorrt_rtx as trt
import torch
from torch import Tensor

from tests.support.witness import contracting, decoding, looping, moving, pointwise
from tests.support.witness.reading import DTYPES, Reading, WitnessError

_KIND = trt.LayerType
RULES: Mapping[Any, tuple[type, Callable[[Reading], Tensor]]] = {
    _KIND.ACTIVATION: (trt.IActivationLayer, pointwise.activation),
    _KIND.ATTENTION_INPUT: (trt.IAttentionInputLayer, decoding.attention_input),
    _KIND.ATTENTION_OUTPUT: (trt.IAttentionOutputLayer, decoding.attention_output),
    _KIND.CAST: (trt.ICastLayer, pointwise.cast),
    _KIND.CONCATENATION: (trt.IConcatenationLayer, moving.concatenation),
    _KIND.CONSTANT: (trt.IConstantLayer, pointwise.constant),
    _KIND.CONVOLUTION: (trt.IConvolutionLayer, contracting.convolution),
    _KIND.DEQUANTIZE: (trt.IDequantizeLayer, pointwise.dequantize),
    _KIND.ELEMENTWISE: (trt.IElementWiseLayer, pointwise.elementwise),
    _KIND.FILL: (trt.IFillLayer, moving.fill),
    _KIND.GATHER: (trt.IGatherLayer, moving.gather),
    _KIND.IDENTITY: (trt.IIdentityLayer, pointwise.identity),
    _KIND.KV_CACHE_UPDATE: (trt.IKVCacheUpdateLayer, decoding.kv_cache_update),
    _KIND.MATRIX_MULTIPLY: (trt.IMatrixMultiplyLayer, contracting.matrix_multiply),
    _KIND.NORMALIZATION: (trt.INormalizationLayer, contracting.normalization),
    _KIND.REDUCE: (trt.IReduceLayer, contracting.reduce),
    _KIND.ROTARY_EMBEDDING: (trt.IRotaryEmbeddingLayer, decoding.rotary_embedding),
    _KIND.SELECT: (trt.ISelectLayer, pointwise.select),
    _KIND.SHAPE: (trt.IShapeLayer, moving.shape),
    _KIND.SHUFFLE: (trt.IShuffleLayer, moving.shuffle),
    _KIND.SLICE: (trt.ISliceLayer, moving.slice_),
    _KIND.SOFTMAX: (trt.ISoftMaxLayer, contracting.softmax),
    _KIND.UNARY: (trt.IUnaryLayer, pointwise.unary),
}


def replay(definition: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute the outputs of a strongly typed `INetworkDefinition` in PyTorch.

    Args:
        inputs: a tensor for every input of the network, of its dtype and shape.
    Returns:
        The network's outputs by their names.
    Raises:
        WitnessError: a layer, or a parameter of one, is not known to the witness; a tensor has not the dtype and shape
            that TensorRT states for it; an index reaches outside of what it selects from.
    """
    if not definition.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED):
        raise WitnessError("the network is not strongly typed: TensorRT would choose precisions of its own")
    values = _checked_inputs(definition, inputs)
    with torch.no_grad():
        for layer in _in_order(definition, set(values)):
            if isinstance(layer, looping.Loop):
                layer.run(values, _compute)
            else:
                _compute(layer, values)
    return {name: values[name] for name in (definition.get_output(i).name for i in range(definition.num_outputs))}


def _compute(layer: Any, values: dict[str, Tensor]) -> None:
    """Compute the output of a layer."""
    # IActivationLayer has a `type` of its own; the layer's is ILayer's.
    kind = trt.ILayer.type.fget(layer)
    if kind not in RULES:
        raise WitnessError(f"layer {layer.name!r}: {kind} is not known to the witness")
    layer.__class__, rule = RULES[kind]
    reading = Reading(layer, _set_inputs(layer), values)
    if layer.num_ranks != 1 or layer.num_outputs != 1:
        reading.fail(f"has {layer.num_outputs} outputs, {layer.num_ranks} ranks")
    try:
        result = rule(reading)
    except (RuntimeError, IndexError, ValueError) as error:
        reading.fail(f"PyTorch refuses: {str(error).splitlines()[0]}")
    reading.finish()
    handle = layer.get_output(0)
    _check(handle, result)
    values[handle.name] = result


def _set_inputs(layer: Any) -> list[int]:
    return [index for index in range(layer.num_inputs) if layer.get_input(index) is not None]


def _in_order(definition: Any, given: set[str]) -> list[Any]:
    """The layers, each behind those that make its inputs; a loop and the layers in it are one.

    TensorRT numbers layers as they were added.
    """
    layers: list[Any] = [definition.get_layer(index) for index in range(definition.num_layers)]
    names = [layer.get_output(index).name for layer in layers for index in range(layer.num_outputs)]
    if len(set(names) | given) != len(names) + len(given):
        raise WitnessError("two tensors of the network have one name")
    makers = {layer.get_output(i).name: place for place, layer in enumerate(layers) for i in range(layer.num_outputs)}
    needs: dict[int, set[int]] = {}
    for place, layer in enumerate(layers):
        used = {layer.get_input(index).name for index in _set_inputs(layer)} - given
        if unknown := used - set(makers):
            raise WitnessError(f"layer {layer.name!r} takes {', '.join(sorted(unknown))}, which nothing makes")
        needs[place] = {makers[name] for name in used}
    loops = looping.loops_of(layers, needs)
    of_loop = {place: loop for loop in loops for place in loop.places}
    grouped: dict[Any, set[Any]] = {}
    for place, used in needs.items():
        group = of_loop.get(place, place)
        grouped.setdefault(group, set()).update({of_loop.get(each, each) for each in used} - {group})
    return [
        each if isinstance(each, looping.Loop) else layers[each] for each in TopologicalSorter(grouped).static_order()
    ]


def _checked_inputs(definition: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    handles = {handle.name: handle for handle in (definition.get_input(i) for i in range(definition.num_inputs))}
    if set(handles) != set(inputs) or len(handles) != definition.num_inputs:
        raise WitnessError(f"the network expects {', '.join(sorted(handles))}, given are {', '.join(sorted(inputs))}")
    sizes: dict[str, int] = {}
    for name, handle in handles.items():
        _check(handle, inputs[name])
        for axis, size in enumerate(inputs[name].shape):
            dimension = handle.get_dimension_name(axis)
            if dimension and sizes.setdefault(dimension, size) != size:
                raise WitnessError(f"dimension {dimension} is {sizes[dimension]} and, in {name}, {size}")
    return dict(inputs)


def _check(handle: Any, tensor: Tensor) -> None:
    """Hold a tensor against what TensorRT states of it."""
    try:
        shape = tuple(handle.shape)
    except RuntimeError as error:
        raise WitnessError(f"TensorRT cannot infer the shape of {handle.name!r}") from error
    fits = len(shape) == tensor.dim() and all(
        want in (-1, have) for want, have in zip(shape, tensor.shape, strict=True)
    )
    if DTYPES.get(handle.dtype) != tensor.dtype or not fits:
        stated = f"{handle.dtype} {list(shape)}"
        raise WitnessError(f"{handle.name!r} is {tensor.dtype} {list(tensor.shape)}, TensorRT states {stated}")
