"""The decoder with its KV cache gives, token by token, what the model gives at once, or refuses the model."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from ditto import ops
from ditto.builders.llm import LlmBuilder
from ditto.errors import UnsupportedFeature
from ditto.lowering import Lowering, lower, table
from ditto.network import Network, Spec, check, symbol
from ditto.network.layers import KVCacheUpdate, RotaryEmbedding
from ditto.network.text import network_text
from ditto.network.weight import stored_names
from ditto.ops.attention import visible
from ditto.reference import RELATIVE_ERROR, TOLERANCE, Constants, relative_error, run
from ditto.rewrite import rewrite
from ditto.targets.tensorrt.lowering import Decoder, attention
from tests.support.describing import engine_of
from tests.support.layers import FLOATS, NoTensors, emitted
from tests.support.models import llama
from tests.support.programs import FunctionModule, captured
from tests.support.stages import MAX_SEQ_LEN, empty_caches, staged

_ops = torch.ops.ditto
CAPACITY = 7


def _vision(function, inputs, names=None, buffers=()):
    """A function with attention as a network, as a vision tower is lowered."""
    program = captured(FunctionModule(function, buffers=buffers), inputs, names)
    rewrite(program, {"batch": 2})
    return lower(program, {**table(), _ops.attention.default: attention}, None, "test")


X = torch.randn(2, 4, 5, 8, generator=torch.Generator().manual_seed(0))


def _attention(
    x, mask=None, sinks=None, causal=False, window=0, softcap=0.0, slopes=None, width=8, spans=(None, False)
):
    rest = (window, softcap, 0, slopes, *spans)
    return ops.attention(x, x[:, :2], x[:, 2:, :, :width], mask, sinks, 0.25, causal, *rest)


STATIC = torch.rand(5, 5, generator=torch.Generator().manual_seed(1)) > 0.5
STATIC |= torch.eye(5, dtype=torch.bool)
TOWERS = {
    "full": (lambda x: _attention(x), ()),
    "causal": (lambda x: _attention(x, causal=True), ()),
    "soft-capped": (lambda x: _attention(x, softcap=0.8), ()),
    "static mask": (lambda self, x: _attention(x, self.m), {"m": STATIC}),
    "static mask, soft-capped": (lambda self, x: _attention(x, self.m, softcap=0.8), {"m": STATIC}),
    "static mask that is added": (
        lambda self, x: _attention(x, self.m),
        {"m": torch.where(STATIC, 0.0, float("-inf"))[None]},
    ),
    "causal mask that is added": (
        lambda self, x: _attention(x, self.m),
        {"m": torch.where(visible(5), 0.0, float("-inf"))[None, None]},
    ),
}


@pytest.mark.parametrize(("function", "buffers"), TOWERS.values(), ids=TOWERS)
@pytest.mark.parametrize("names", [None, {"x": "batch"}], ids=["static", "dynamic"])
def test_a_towers_attention_is_the_operator(function, buffers, names):
    network = _vision(function, {"x": X}, names, buffers)
    emitted(network)
    found = run(network, {"x": X}, Constants(network, NoTensors()))["result"]
    assert_close(found, FunctionModule(function, buffers=buffers)(X), **TOLERANCE[torch.float32])


PER_HEAD = torch.stack([visible(5, 1 + head) for head in range(4)])
REFUSED = {
    "a window": (
        lambda x: _attention(x, causal=True, window=3),
        (),
        "windowed or soft-capped causal attention outside",
    ),
    "a causal soft-cap": (lambda x: _attention(x, causal=True, softcap=1.0), (), "windowed or soft-capped causal"),
    "sinks": (lambda x: _attention(x, sinks=torch.zeros(4)), (), "attention outside a decoder has learned sinks"),
    "slopes": (lambda x: _attention(x, slopes=torch.zeros(4)), (), "attention scores outside a decoder get a bias"),
    "spans": (
        lambda x: _attention(x, causal=True, spans=(torch.zeros(2, 5, dtype=torch.int32), False)),
        (),
        "tokens outside a decoder form spans",
    ),
    "a mask per head": (
        lambda self, x: _attention(x, self.m),
        {"m": PER_HEAD},
        "an attention mask that differs between heads",
    ),
}


@pytest.mark.parametrize(("function", "buffers", "said"), REFUSED.values(), ids=REFUSED)
def test_what_a_tower_cannot_honour_is_refused(function, buffers, said):
    with pytest.raises(UnsupportedFeature, match=f"^{said}"):
        _vision(function, {"x": X}, buffers=buffers)


def test_a_tower_adds_a_bias_that_is_an_input():
    inputs = {"x": X, "m": torch.randn(5, 5, generator=torch.Generator().manual_seed(3))}
    network = _vision(lambda x, m: _attention(x, m), inputs)
    emitted(network)
    found = run(network, inputs, Constants(network, NoTensors()))["result"]
    assert_close(found, _attention(X, inputs["m"]), **TOLERANCE[torch.float32])


def _decoder(function, inputs, names, forms=None):
    """A function as a decoder's network, without rewrites."""
    program = captured(function, inputs, names)
    net = Lowering(Network("test"), program, None)
    return lower(program, {**Decoder(net, CAPACITY).table(), **(forms or {})}, None, "test", net)


NAMES = {"x": "batch . sequence"}
NOT_CAUSAL = "the decoder's attention is not causal"
REFUSED_BY_DECODERS = {
    "full attention": (lambda x: _attention(x), NOT_CAUSAL),
    "a mask": (lambda x: _attention(x, visible(5), causal=True), NOT_CAUSAL),
    "a layer twice": (
        lambda x: _attention(_attention(x, causal=True), causal=True),
        "two attentions say that they are layer 0",
    ),
}


@pytest.mark.parametrize(("function", "said"), REFUSED_BY_DECODERS.values(), ids=REFUSED_BY_DECODERS)
def test_what_a_decoder_cannot_honour_is_refused(function, said):
    with pytest.raises(UnsupportedFeature, match=f"^{said}") as raised:
        _decoder(function, {"x": X}, None if said == NOT_CAUSAL else NAMES)
    assert str(raised.value.where).startswith("programs.py:")


# What attention may do beyond windows and soft-caps.
MORE = {
    "nothing": {},
    "sinks": {"sinks": torch.linspace(-2, 2, 4)},
    "slopes": {"slopes": torch.tensor([0.5, 0.25, 0.125, 2.0])},
    "narrow values": {"width": 5},
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (3, 0.0), (1, 0.0), (0, 0.7), (2, 0.7)])
@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
def test_attention_over_the_cache_is_attention_over_the_whole_sequence(dtype, window, softcap, more):
    """Two rows that hold different numbers of tokens already get three more."""
    whole = torch.randn(2, 4, CAPACITY, 8, generator=torch.Generator().manual_seed(2)).to(dtype)
    attend = partial(_attention, causal=True, window=window, softcap=softcap, **more)
    network = _decoder(lambda x: attend(x), {"x": whole}, NAMES)
    width = more.get("width", 8)
    emitted(network)
    held, count = torch.tensor([4, 1], dtype=torch.int32), 3
    new = torch.stack([whole[row, :, start : start + count] for row, start in enumerate(held)])
    inputs = {"x": new, "write_indices": held}
    for name, part in (("past_key_0", whole[:, :2]), ("past_value_0", whole[:, 2:, :, :width])):
        inputs[name] = torch.full_like(part, 9.0)  # what lies behind the held tokens is not looked at
        for row, start in enumerate(held):
            inputs[name][row, :, :start] = part[row, :, :start]
    results = run(network, inputs, Constants(network, NoTensors()))
    for row, start in enumerate(held):
        end = int(start) + count
        wanted = attend(whole[row : row + 1, :, :end])[0, :, start:]
        assert_close(results["result"][row], wanted, **TOLERANCE[dtype])
        assert torch.equal(results["present_key_0"][row, :, :end], whole[row, :2, :end])
        assert torch.equal(results["present_value_0"][row, :, :end], whole[row, 2:, :end, :width])


SPANS = torch.tensor([[1, 1, 0, 2, 2, 2], [0, 1, 1, 1, 1, 0]], dtype=torch.int32)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize("softcap", [0.0, 0.7])
@pytest.mark.parametrize("held", [0, 1], ids=["empty", "held"])
def test_spans_of_new_tokens_are_attended_to_in_both_directions(whole, window, softcap, held):
    """Also after other tokens, which have no spans any more."""
    count = SPANS.shape[1]
    whole_x = torch.randn(2, 4, held + count, 8, generator=torch.Generator().manual_seed(2))
    attend = partial(_attention, causal=True, window=window, softcap=softcap)
    names = {"x": "batch . sequence", "s": "batch sequence"}
    network = _decoder(lambda x, s: attend(x, spans=(s, whole)), {"x": whole_x[:, :, held:], "s": SPANS}, names)
    emitted(network)
    inputs = {"x": whole_x[:, :, held:], "s": SPANS, "write_indices": torch.full((2,), held, dtype=torch.int32)}
    for name, part in (("past_key_0", whole_x[:, :2]), ("past_value_0", whole_x[:, 2:])):
        inputs[name] = torch.full((2, 2, CAPACITY, 8), 9.0)
        inputs[name][:, :, :held] = part[:, :, :held]
    found = run(network, inputs, Constants(network, NoTensors()))["result"]
    spans = torch.nn.functional.pad(SPANS, (held, 0))
    wanted = attend(whole_x, spans=(spans, whole))[:, :, held:]
    assert_close(found, wanted, **TOLERANCE[torch.float32])
    assert relative_error(attend(whole_x)[:, :, held:], wanted) > 1e-2


def test_a_cache_is_an_input_that_is_updated_in_its_own_memory():
    network = staged("llama").network
    cache = Spec((symbol("batch"), 2, MAX_SEQ_LEN, 16), torch.float32)
    for layer in range(2):
        for kind in ("key", "value"):
            past, present = f"past_{kind}_{layer}", f"present_{kind}_{layer}"
            assert network.inputs[past] == cache
            assert network.value(network.outputs[present]).spec == cache
            assert network.shared[present] == past
    assert network.inputs["write_indices"] == Spec((symbol("batch"),), torch.int32)
    assert sum(isinstance(node.layer, KVCacheUpdate) for node in network.nodes) == 4
    assert sum(isinstance(node.layer, RotaryEmbedding) for node in network.nodes) == 4
    check(network)


def _fills(name):
    return sum(type(node.layer).__name__ == "Fill" for node in staged(name).network.nodes)


def test_layers_of_one_window_share_their_mask():
    assert _fills("llama") == _fills("mistral with a window") == 1
    windows = [node for node in staged("gemma2 with soft-caps and windows").network.nodes if "SUB" in str(node.layer)]
    assert len(windows) == 1


STEPWISE = [
    "llama",
    "llama with a single KV head",
    "mistral with a window",
    "gemma2 with soft-caps and windows",
    "qwen3",
]


@pytest.mark.parametrize("name", STEPWISE)
def test_decoding_token_by_token_gives_hugging_faces_logits(name):
    """Three prompts of different lengths, padded on the right, then nine more tokens each."""
    told = staged(name)
    network, constants = told.network, Constants(told.network, told.part.tensors)
    lengths, steps = torch.tensor([6, 3, 1], dtype=torch.int32), 9
    batch, longest = len(lengths), int(lengths.max())
    tokens = torch.randint(3, 126, (batch, longest + steps), generator=torch.Generator().manual_seed(3))
    state = empty_caches(network, batch)
    for step in range(steps + 1):
        if step == 0:
            ids, last = tokens[:, :longest].int(), lengths - 1
            positions = torch.arange(longest, dtype=torch.int32).repeat(batch, 1)
        else:
            ids = torch.stack([tokens[row, n + step - 1] for row, n in enumerate(lengths)])[:, None].int()
            last, positions = torch.zeros_like(lengths), (lengths + step - 1)[:, None]
            state["write_indices"] = lengths + step - 1
        given = {"input_ids": ids, "position_ids": positions, "last_token_ids": last, **state}
        results = run(network, given, constants)
        state = {**state, **{past: results[present] for present, past in network.shared.items()}}
        for row, length in enumerate(lengths):
            with torch.no_grad():
                wanted = told.model(tokens[row : row + 1, : length + step]).logits[0, -1]
            assert relative_error(results["logits"][row], wanted) < RELATIVE_ERROR[torch.float32], (step, row)


def _positions(rows):
    return torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], dtype=torch.int32)[:rows]


TABLES = [torch.randn(11, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
PIECES = {
    "rope": (lambda x, p: ops.rope(x, *TABLES, p, False), {"x": X, "p": _positions(2)}),
    "rope of pairs": (lambda x, p: ops.rope(x, *TABLES, p, True), {"x": X, "p": _positions(2)}),
    "rope with one row of positions": (lambda x, p: ops.rope(x, *TABLES, p, False), {"x": X, "p": _positions(1)}),
    "prompt rows": (
        lambda ids, t: ops.prompt_rows(ids, t, 10),
        {"ids": torch.tensor([[3, 10, 12], [11, 9, 10]], dtype=torch.int32), "t": torch.randn(4, 6)},
    ),
    "prompt rows of int64": (
        lambda ids, t: ops.prompt_rows(ids, t, 10),
        {"ids": torch.tensor([[3, 10, 12], [11, 9, 10]]), "t": torch.randn(4, 6).half()},
    ),
    "last tokens": (lambda x, i: ops.last_tokens(x, i), {"x": X[:, 0], "i": torch.tensor([4, 0], dtype=torch.int32)}),
}
DYNAMIC = {"x": "batch . sequence", "p": "batch sequence", "ids": "batch sequence", "t": "rows", "i": "batch"}


@pytest.mark.parametrize(("function", "inputs"), PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("dynamic", [False, True])
def test_the_decoders_own_operators_compute_what_they_say(function, inputs, dynamic):
    names = {name: DYNAMIC[name] for name in inputs} if dynamic else None
    if dynamic and "i" in inputs:
        names["x"] = "batch sequence"
    if dynamic and len(inputs.get("p", "two")) == 1:
        names["p"] = ". sequence"
    network = _decoder(function, inputs, names)
    emitted(network)
    found = run(network, inputs, Constants(network, NoTensors()))["result"]
    assert_close(found, function(*inputs.values()), **TOLERANCE[found.dtype])


def test_tied_embeddings_are_one_tensor_of_the_checkpoint():
    network = staged("llama with tied embeddings").network
    names = [name for constant in network.constants() for name in stored_names(constant.weight)]
    assert not [name for name in names if "lm_head" in name]
    assert len([name for name in set(names) if "embed_tokens" in name]) == 1


def test_network_of_a_tiny_llama(golden):
    model = llama(num_hidden_layers=1)
    builder = LlmBuilder.from_model(model).with_batch(2).with_max_seq_len(16)
    text = network_text(engine_of(builder).network)
    # Digests of cosines and sines depend on the last bit, which depends on the processor.
    assert re.sub(r"literal [0-9a-f]+", "literal", text) == golden(name="tiny_llama")
