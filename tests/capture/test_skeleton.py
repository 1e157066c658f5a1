"""Modules without weights have their shapes, their buffers, and leave no trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaForCausalLM

from ditto.capture import weightless
from ditto.capture.skeleton import stand_in
from tests.support.models import TEXT_MODELS, TRANSFORMERS_5, llama


class _Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(3, 4)
        self.down = nn.Linear(3, 4, bias=False)
        self.down.weight = self.up.weight
        self.register_buffer("positions", torch.arange(4))
        self.register_buffer("frequencies", torch.ones(2).float() / 3)
        self.register_buffer("nothing", None)
        self.register_parameter("none", None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weightless_modules_have_parameters_without_memory_and_real_buffers(dtype):
    with weightless(dtype):
        module = _Module()
    assert all(p.is_meta and p.dtype == dtype and not p.requires_grad for p in module.parameters())
    assert module.up.weight.shape == (4, 3)
    assert module.up.weight is module.down.weight
    assert module.positions.tolist() == [0, 1, 2, 3]
    assert torch.equal(module.frequencies, torch.ones(2) / 3)


def test_a_weightless_hugging_face_model_has_the_buffers_of_a_real_one():
    with weightless(torch.float16):
        model = llama()
    assert all(p.is_meta for p in model.parameters())
    buffers = dict(model.named_buffers())
    for name, wanted in llama().named_buffers():
        assert torch.equal(buffers[name].float(), wanted.to(buffers[name].dtype).float()), name


@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4 has no such mark on parameters")
def test_transformers_draws_no_numbers_for_parameters_without_memory():
    class Drawn(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += func == torch.ops.aten.normal_.default
            return func(*args, **(kwargs or {}))

    config = llama().config
    with weightless(torch.float16), Drawn() as drawn:
        LlamaForCausalLM(config)
    assert drawn.count == 1  # by torch, when the embedding is made


def test_weightless_leaves_torch_as_it_was_even_after_an_error():
    register, default = nn.Module.register_parameter, torch.get_default_dtype()
    with pytest.raises(ValueError, match="inside"), weightless(torch.float16):
        assert torch.get_default_dtype() == torch.float16
        raise ValueError("inside")
    assert nn.Module.register_parameter is register
    assert torch.get_default_dtype() == default
    assert not nn.Linear(1, 1).weight.is_meta


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_a_stand_in_has_shapes_and_buffers_but_no_weights(dtype):
    module = _Module().train()
    twin = stand_in(module, FakeTensorMode(allow_non_fake_inputs=True), dtype)
    for name, parameter in twin.named_parameters(remove_duplicate=False):
        assert isinstance(parameter.data, FakeTensor) and parameter.device.type == "cpu"
        assert parameter.dtype == (dtype or torch.float32)
        assert parameter.shape == module.get_parameter(name).shape
    assert twin.up.weight is twin.down.weight
    assert torch.equal(twin.frequencies, module.frequencies) and twin.frequencies is not module.frequencies
    assert twin.frequencies.dtype == torch.float32, "buffers keep their dtype"
    assert module.training and not twin.training


def test_a_stand_in_of_a_module_without_memory_needs_none():
    with weightless(torch.bfloat16):
        module = _Module()
    twin = stand_in(module, FakeTensorMode(allow_non_fake_inputs=True))
    assert {(parameter.dtype, parameter.device.type) for parameter in twin.parameters()} == {(torch.bfloat16, "cpu")}


def test_tied_embeddings_stay_tied():
    model = TEXT_MODELS["llama with tied embeddings"]()
    twin = stand_in(model, FakeTensorMode(allow_non_fake_inputs=True))
    assert twin.get_input_embeddings().weight is twin.get_output_embeddings().weight
    assert twin.get_input_embeddings().weight is not model.get_input_embeddings().weight
