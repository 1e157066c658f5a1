"""Decoders whose state is more than keys and values are refused, by what they do and where; others are not."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional

from ditto.builders.llm import LlmBuilder
from ditto.capture import export
from ditto.errors import UnsupportedFeature
from ditto.program import Program
from ditto.reference import RELATIVE_ERROR, Constants, relative_error
from ditto.rewrite import rewrite
from ditto.rewrite.rule import arguments
from ditto.rewrite.tokens import refuse_other_layers, refuse_other_state
from ditto.targets import target
from tests.support.decoding import continued
from tests.support.describing import engine_of
from tests.support.models import TRANSFORMERS_5, llama, made
from tests.support.programs import captured

TARGETS = ("tensorrt-rtx", "trtllm")
_COMMON = {"vocab_size": 128, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_SEQ2SEQ = {
    **_COMMON,
    "d_model": 64,
    **{
        f"{side}_{name}": size
        for side in ("encoder", "decoder")
        for name, size in (("layers", 2), ("attention_heads", 4))
    },
    **{f"{side}_ffn_dim": 96 for side in ("encoder", "decoder")},
    "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
    "is_decoder": True,
    "is_encoder_decoder": False,
}


def _of(cls: str, config: str, **settings):
    return lambda: made(getattr(transformers, cls), getattr(transformers, config)(**settings))


# Positions counted by the model, attention written out, or both.
OWN_CODE = {
    "bart": _of("BartForCausalLM", "BartConfig", **_SEQ2SEQ),
    "bigbird_pegasus": _of("BigBirdPegasusForCausalLM", "BigBirdPegasusConfig", **_SEQ2SEQ),
    "blenderbot": _of("BlenderbotForCausalLM", "BlenderbotConfig", **_SEQ2SEQ),
    "blenderbot-small": _of("BlenderbotSmallForCausalLM", "BlenderbotSmallConfig", **_SEQ2SEQ),
    "gpt_neo": _of(
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        **_COMMON,
        hidden_size=64,
        intermediate_size=96,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=8,
    ),
    "marian": _of("MarianForCausalLM", "MarianConfig", **_SEQ2SEQ),
    "mbart": _of("MBartForCausalLM", "MBartConfig", **_SEQ2SEQ),
    "mvp": _of("MvpForCausalLM", "MvpConfig", **_SEQ2SEQ),
    "pegasus": _of("PegasusForCausalLM", "PegasusConfig", **_SEQ2SEQ),
    "plbart": _of("PLBartForCausalLM", "PLBartConfig", **_SEQ2SEQ),
    "trocr": _of("TrOCRForCausalLM", "TrOCRConfig", **_SEQ2SEQ),
}
_DECODER = {**_COMMON, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
NEAR_MISSES = {
    "gpt_neox": _of("GPTNeoXForCausalLM", "GPTNeoXConfig", **_DECODER),
    "cohere": _of("CohereForCausalLM", "CohereConfig", **_DECODER),
}
if TRANSFORMERS_5:  # their attention was their own before
    NEAR_MISSES |= {
        "opt": _of(
            "OPTForCausalLM",
            "OPTConfig",
            **_COMMON,
            hidden_size=64,
            ffn_dim=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            word_embed_proj_dim=64,
        ),
        "opt, norms behind": _of(
            "OPTForCausalLM",
            "OPTConfig",
            **_COMMON,
            hidden_size=64,
            ffn_dim=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            word_embed_proj_dim=48,
            do_layer_norm_before=False,
        ),
        "persimmon": _of("PersimmonForCausalLM", "PersimmonConfig", **_DECODER),
    }
    NEAR_MISSES["biogpt"] = _of("BioGptForCausalLM", "BioGptConfig", **_DECODER)
    NEAR_MISSES["gpt_bigcode"] = _of(
        "GPTBigCodeForCausalLM",
        "GPTBigCodeConfig",
        vocab_size=128,
        n_positions=64,
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_inner=96,
    )


def _builder(model, name):
    return LlmBuilder.from_model(model).with_target(name).with_batch(2).with_max_seq_len(40).with_max_input_len(24)


@pytest.mark.drawn(7)
@pytest.mark.parametrize("name", [*OWN_CODE, *NEAR_MISSES])
def test_decoders_with_code_of_their_own_decode_as_hugging_face_does(name):
    model = {**OWN_CODE, **NEAR_MISSES}[name]()
    engine = engine_of(_builder(model, "tensorrt-rtx"))
    network = engine.network
    for found, wanted in continued(network, Constants(network, engine.part.tensors), model):
        assert relative_error(found, wanted) <= RELATIVE_ERROR[torch.float32]


class _Planted(nn.Module):
    """A layer's MLP, with something done to its input first."""

    def __init__(self, mlp, function):
        super().__init__()
        self.mlp, self.function = mlp, function
        self.kernel = nn.Parameter(torch.randn(64, 1, 3))
        self.table = nn.Parameter(torch.randn(8200, 64))  # more rows than tokens in a call

    def forward(self, x):
        return self.mlp(self.function(self, x))


def _scores(x):
    return x @ x.transpose(-1, -2)


def _unmasked(x):
    """The mask as Ditto gives it, true where a token is seen, added as if it were minus infinity elsewhere."""
    seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
    return (_scores(x) + seen.to(x.dtype)).softmax(-1) @ x


PLANTED = {
    "a token shift": (lambda m, x: x + x.roll(1, 1), "roll.*moves the tokens"),
    "a convolution that looks ahead": (
        lambda m, x: functional.conv1d(x.transpose(1, 2), m.kernel, padding=1, groups=64).transpose(1, 2),
        "conv1d.*convolves over the tokens",
    ),
    "a running sum": (lambda m, x: x.cumsum(1), "cumsum.*adds up over the tokens"),
    "a running mean": (lambda m, x: x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None], "cumsum.*adds up"),
    "positions from the end": (
        lambda m, x: x + m.table[x.shape[1] - 1 - torch.arange(x.shape[1])],
        "counts them",
    ),
    "attention of its own": (lambda m, x: _scores(x).softmax(-1) @ x, "matmul.*multiplies the tokens"),
    "a bool mask that is added": (lambda m, x: _unmasked(x), "matmul.*multiplies the tokens"),
}


@pytest.mark.drawn(7)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("function", "words"), PLANTED.values(), ids=PLANTED)
def test_planted_state_is_refused_where_it_is(target, function, words):
    model = llama(max_position_embeddings=64)
    model.model.layers[1].mlp = _Planted(model.model.layers[1].mlp, function)
    with pytest.raises(UnsupportedFeature, match=words) as refused:
        engine_of(_builder(model, target))
    assert getattr(refused.value.where, "module", "").startswith("model.layers.1.mlp")


COUNTED = {
    "positions": lambda m, x: x + m.table[torch.arange(x.shape[1])],
    "a table that is cut off": lambda m, x: x + m.table[: x.shape[1]],
}


@pytest.mark.parametrize("function", COUNTED.values(), ids=COUNTED)
def test_what_a_layer_counts_is_the_tokens_position(function):
    model = llama(max_position_embeddings=64)
    model.model.layers[1].mlp = _Planted(model.model.layers[1].mlp, function)
    engine = engine_of(_builder(model, "tensorrt-rtx"))
    for found, wanted in continued(engine.network, Constants(engine.network, engine.part.tensors), model):
        assert relative_error(found, wanted) <= RELATIVE_ERROR[torch.float32]


def test_a_planted_layer_that_keeps_tokens_apart_is_none():
    model = llama()
    model.model.layers[1].mlp = _Planted(model.model.layers[1].mlp, lambda m, x: x.cumsum(-1) + m.table[3])
    assert isinstance(_captured(model), Program)


def _captured(model):
    part = _builder(model, "tensorrt-rtx").part(target("tensorrt-rtx"))
    program = export(part.wrapper, part.inputs, part.output_names, part.prefix, part.dtype)
    rewrite(program, part.sizes, part.positions, True, part.attentions)
    return program


def test_a_layer_without_a_cache_is_refused():
    model = llama()
    model.model.layers[1].self_attn = _NoAttention()
    with pytest.raises(
        UnsupportedFeature, match="has 2 layers that attend, and 1 attentions have a KV cache: layers 1 have"
    ):
        engine_of(_builder(model, "tensorrt-rtx"))


class _NoAttention(nn.Module):
    def forward(self, hidden_states, **_):
        return hidden_states, None


def test_an_operator_that_nobody_knows_leaves_a_doubt():
    program = captured(
        lambda x: x + torch.linalg.matrix_exp(x @ x.mT).sum(-1, keepdim=True) * 0,
        {"x": torch.randn(2, 3, 4, 4)},
        {"x": "batch sequence"},
    )
    assert refuse_other_state(program) == 0
    assert [operation for operation, _ in program.doubts] == ["aten.linalg_matrix_exp.default"]


def test_what_is_counted_may_not_come_out():
    program = captured(
        lambda x: x.new_zeros(1) + torch.arange(x.shape[1]), {"x": torch.randn(2, 5)}, {"x": "batch sequence"}
    )
    with pytest.raises(UnsupportedFeature, match="arange.*counts them"):
        refuse_other_state(program)


def test_attentions_that_run_several_times_are_numbered():
    def attend(x):
        for layer in (0, 0, 1, 1):
            x = torch.ops.ditto.attention(x, x, x, None, None, 1.0, True, 0, 0.0, layer)
        return x

    inputs, names = {"x": torch.randn(2, 1, 5, 4)}, {"x": "batch . sequence"}
    program = captured(attend, inputs, names)
    assert refuse_other_layers(program, 2) == 4
    nodes = program.graph.find_nodes(op="call_function", target=torch.ops.ditto.attention.default)
    assert [arguments(node)["layer"] for node in nodes] == [0, 1, 2, 3]
    with pytest.raises(UnsupportedFeature, match="has 3 layers that attend, and 4 attentions have a KV cache"):
        refuse_other_layers(captured(attend, inputs, names), 3)


def test_a_program_without_attention_has_no_layers():
    program = captured(lambda x: x * 2, {"x": torch.randn(2, 5)}, {"x": "batch sequence"})
    assert refuse_other_layers(program, 0) == 0
    with pytest.raises(UnsupportedFeature, match="has 1 layers that attend, and 0 attentions have a KV cache"):
        refuse_other_layers(program, 1)
