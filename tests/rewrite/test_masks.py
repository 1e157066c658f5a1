"""Masks become facts by what they are at the engine's longest sequence; what no engine honours is refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from ditto import ops
from ditto.errors import UnsupportedFeature
from ditto.ops.attention import AttentionArguments, visible
from ditto.ops.spans import SpanRule
from ditto.rewrite.attention import recognise_sdpa
from ditto.rewrite.clean import clean
from ditto.rewrite.masks import classify_masks
from ditto.rewrite.rule import arguments
from tests.support.programs import FunctionModule, captured
from tests.support.rewriting import check_applies, check_misses

LENGTH = 12
X = torch.randn(2, 3, LENGTH, 4, generator=torch.Generator().manual_seed(0))
SIZES = {"batch": 2, "sequence": LENGTH}
NAMES = {"x": "batch . sequence", "ids": "batch sequence"}
masks = partial(classify_masks, sizes=SIZES)


def _attention(x, mask, causal=False):
    return ops.attention(x, x, x, mask, None, 0.5, causal, 0, 0.0, 0)


def _positions(x):
    return torch.arange(x.shape[2])


def _distance(x):
    return _positions(x)[:, None] - _positions(x)[None, :]


def _added(seen, lowest=-3.4e38):
    return torch.where(seen, 0.0, lowest)


def _old_hugging_face(x):
    """As transformers before 4.53 makes it: the smallest number above the diagonal, expanded, copied, and padding
    filled in place."""
    length = x.shape[2]
    mask = torch.full((length, length), torch.finfo(x.dtype).min, dtype=x.dtype).triu(1)
    mask = mask[None, None].expand(x.shape[0], 1, -1, -1).clone()
    padding = torch.ones(x.shape[0], length)
    unseen = (mask[:, :, :, :length] + padding[:, None, None, :]) == 0
    mask[:, :, :, :length] = mask[:, :, :, :length].masked_fill(unseen, torch.finfo(x.dtype).min)
    return mask


# A mask → causal, window.
FACTS = {
    "causal": (lambda x: _distance(x) >= 0, (True, 0)),
    "causal, per batch row": (lambda x: (_distance(x) >= 0)[None, None].expand(x.shape[0], 1, -1, -1), (True, 0)),
    "causal, added": (lambda x: _added(_distance(x) >= 0), (True, 0)),
    "causal, minus infinity added": (lambda x: _added(_distance(x) >= 0, float("-inf")), (True, 0)),
    "causal, half of the smallest number added": (lambda x: _added(_distance(x) >= 0, -1e30), (True, 0)),
    "causal, as it was made": (_old_hugging_face, (True, 0)),
    "a window": (lambda x: (_distance(x) >= 0) & (_distance(x) < 5), (True, 5)),
    "a window, added": (lambda x: _added((_distance(x) >= 0) & (_distance(x) < 5)), (True, 5)),
    "a window of one": (lambda x: _distance(x) == 0, (True, 1)),
    "a window one shorter than the sequence": (
        lambda x: (_distance(x) >= 0) & (_distance(x) < LENGTH - 1),
        (True, LENGTH - 1),
    ),
    "a window as long as the sequence": (lambda x: (_distance(x) >= 0) & (_distance(x) < LENGTH), (True, 0)),
    "a window longer than the sequence": (lambda x: (_distance(x) >= 0) & (_distance(x) < LENGTH + 1), (True, 0)),
    "full": (lambda x: _distance(x) > -1000, (False, 0)),
    "full, added": (lambda x: torch.zeros(x.shape[0], 1, x.shape[2], x.shape[2]), (False, 0)),
    "full, of an input's shape": (lambda x: torch.ones_like(x[:, :1, :, 0]).bool()[:, :, None], (False, 0)),
}


@pytest.mark.parametrize(("mask", "facts"), FACTS.values(), ids=FACTS)
def test_masks_become_facts(mask, facts):
    program = check_applies(masks, FunctionModule(lambda x: _attention(x, mask(x))), {"x": X}, names=NAMES)
    (node,) = program.outputs
    assert (node.args[3], (node.args[6], node.args[7])) == (None, facts)
    assert len(program.graph.nodes) == 3, "nothing is left of the mask"


def test_facts_hold_for_every_length():
    window = FACTS["a window"][0]
    program = captured(lambda x: _attention(x, window(x)), {"x": X}, NAMES)
    masks(program)
    (node,) = program.outputs
    for length in (1, 4, 5, 6, LENGTH):
        x = X[:, :, :length]
        assert torch.equal(_attention(x, window(x)), ops.attention(x, x, x, *node.args[3:]))


def test_a_mask_that_layers_share_is_looked_at_once_and_stated_for_each():
    def layers(x):
        mask = _distance(x) >= 0
        return _attention(_attention(x, mask), mask)

    check_applies(masks, layers, {"x": X}, times=2, names=NAMES)


PREFIX = visible(LENGTH)
PREFIX = PREFIX | (torch.arange(LENGTH) < 3)


@pytest.mark.parametrize("kind", ["bool", "added", "per row"])
def test_a_static_mask_of_another_form_stays_a_tensor(kind):
    tensor = {"bool": PREFIX, "added": _added(PREFIX), "per row": torch.stack((PREFIX, PREFIX.T))[:, None]}[kind]
    module = FunctionModule(lambda self, x: _attention(x, self.m), buffers={"m": tensor})
    program = check_applies(masks, module, {"x": X})
    (node,) = program.outputs
    kept = program.constants[node.args[3].target]
    assert torch.equal(kept, tensor if kind == "per row" else PREFIX)
    assert node.args[6] is False


def test_a_static_mask_that_is_computed_is_computed_once():
    def prefix(x):
        positions = torch.arange(LENGTH)
        return (positions[:, None] >= positions[None]) | (positions < 3)

    program = check_applies(masks, lambda x: _attention(x, prefix(x)), {"x": X}, names={"x": "batch"})
    (node,) = program.outputs
    assert torch.equal(program.constants[node.args[3].target], PREFIX)
    assert len(program.graph.nodes) == 4


def _padding(x, ids):
    return (_distance(x) >= 0) & (ids > 0)[:, None, None, :]


def _padding_written_in_place(x, ids):
    mask = (_distance(x) >= 0)[None, None].expand(x.shape[0], 1, -1, -1).clone()
    mask[:, :, :, :1] = mask[:, :, :, :1] & (ids > 0)[:, None, None, :1]
    return mask


def _per_head(x):
    slopes = torch.tensor([0, 1, 0])
    return (_distance(x) >= 0)[None] & (_distance(x)[None] >= slopes[:, None, None] - 1)


OF_VALUES = "the attention mask depends on the values of `ids`"
A_BIAS = "attention scores get an added bias (ALiBi or relative positions)"
ANOTHER_FORM = "the attention mask is neither full nor causal nor a causal window"
CHUNKS = f"tokens attend within chunks of 4 tokens, and sequences go up to {LENGTH}"
REFUSED = {
    "padding": (_padding, OF_VALUES),
    "padding, written in place": (_padding_written_in_place, OF_VALUES),
    "alibi": (lambda x: torch.where(_distance(x) >= 0, -0.5 * _distance(x), -1e9), A_BIAS),
    "relative positions": (lambda x: 0.1 * _distance(x).float(), A_BIAS),
    "chunks": (lambda x: (_distance(x) >= 0) & (_positions(x)[:, None] // 4 == _positions(x)[None] // 4), CHUNKS),
    "shifted chunks": (
        lambda x: (_distance(x) >= 0) & ((_positions(x)[:, None] + 2) // 4 == (_positions(x)[None] + 2) // 4),
        ANOTHER_FORM,
    ),
    "a prefix": (lambda x: (_distance(x) >= 0) | (_positions(x) < 3), ANOTHER_FORM),
    "a bidirectional window": (lambda x: _distance(x).abs() < 3, ANOTHER_FORM),
    "strictly before": (lambda x: _distance(x) > 0, ANOTHER_FORM),
    "a window with a sink": (
        lambda x: (_distance(x) >= 0) & ((_distance(x) < 5) | (_positions(x) == 0)),
        ANOTHER_FORM,
    ),
    "a window without the token itself": (lambda x: (_distance(x) > 0) & (_distance(x) < 5), ANOTHER_FORM),
    "towards the end": (lambda x: _distance(x) <= 0, ANOTHER_FORM),
    "another window per row": (
        lambda x: (_distance(x) >= 0) & (_distance(x) < 3 + torch.arange(x.shape[0])[:, None, None, None]),
        ANOTHER_FORM,
    ),
}
REMEDIES = {
    OF_VALUES: "only masks that follow from positions can be built into an engine",
    A_BIAS: "models with position biases are not supported",
    CHUNKS: "lower max_seq_len to 4",
    ANOTHER_FORM: "other masks (chunks, prefixes, bidirectional windows) are not supported for decoders",
}


@pytest.mark.parametrize(("mask", "said"), REFUSED.values(), ids=REFUSED)
def test_masks_that_no_engine_honours_are_refused(mask, said):
    if mask.__code__.co_argcount == 2:
        inputs = {"x": X, "ids": torch.ones(2, LENGTH)}
        program = captured(lambda x, ids: _attention(x, mask(x, ids)), inputs, NAMES)
    else:
        program = captured(lambda x: _attention(x, mask(x)), {"x": X}, NAMES)
    clean(program)
    with pytest.raises(UnsupportedFeature) as raised:
        masks(program)
    assert (raised.value.cause, raised.value.remedy) == (said, REMEDIES[said])
    assert str(raised.value.where).startswith("programs.py:")


def test_a_single_chunk_is_causal():
    def chunk(x):
        return (_distance(x) >= 0) & (_positions(x)[:, None] // LENGTH == _positions(x)[None] // LENGTH)

    program = captured(lambda x: _attention(x, chunk(x)), {"x": X}, NAMES)
    clean(program)
    assert masks(program) == 1
    (node,) = program.graph.find_nodes(op="call_function", target=torch.ops.ditto.attention.default)
    assert (arguments(node)["mask"], arguments(node)["causal"], arguments(node)["window"]) == (None, True, 0)


def test_a_mask_of_weights_is_refused():
    module = FunctionModule(lambda self, x: _attention(x, (_distance(x) >= 0) & (self.w > 0)), {"w": torch.ones(1)})
    with pytest.raises(UnsupportedFeature, match="^the attention mask depends on the weight `w`"):
        masks(captured(module, {"x": X}, NAMES))


@pytest.mark.parametrize("causal", [True, False])
def test_attention_without_a_mask_stays(causal):
    check_misses(masks, lambda x: _attention(x, None, causal), {"x": X}, NAMES)


def test_masks_of_torchs_own_attention_are_looked_at_too():
    def tower(x):
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=_added(_distance(x) >= 0))

    program = captured(tower, {"x": X}, NAMES)
    recognise_sdpa(program)
    assert masks(program) == 1
    assert program.outputs[0].args[6] is True


def test_a_tower_may_compute_its_mask():
    """Of segments, e.g., or a bias that it learned."""

    def segments(x, ids):
        return (ids[:1, :, None] == ids[:1, None, :])[:, None]

    ids = torch.tensor([[0] * 5 + [1] * 7]).repeat(2, 1)
    tower = partial(classify_masks, sizes=SIZES, is_decoder=False)
    module = FunctionModule(lambda x, ids: _attention(x, segments(x, ids)))
    program = captured(module, {"x": X, "ids": ids}, NAMES)
    assert tower(program) == 0
    (node,) = program.outputs
    assert node.args[3] is not None and not node.args[6]
    with pytest.raises(UnsupportedFeature, match="depends on the values of `ids`"):
        masks(captured(module, {"x": X, "ids": ids}, NAMES))
    added = FunctionModule(lambda x, ids: _attention(x, _added(segments(x, ids))))
    assert tower(captured(added, {"x": X, "ids": ids}, NAMES)) == 0
    bias = FunctionModule(lambda self, x: _attention(x, _distance(x) * self.w), {"w": torch.ones(1)})
    assert tower(captured(bias, {"x": X}, NAMES)) == 0
    with pytest.raises(UnsupportedFeature, match="depends on the weight `w`"):
        masks(captured(bias, {"x": X}, NAMES))
    chosen = FunctionModule(lambda self, x: _attention(x, _distance(x) > self.w), {"w": torch.ones(1)})
    with pytest.raises(UnsupportedFeature, match="depends on the weight `w`"):
        tower(captured(chosen, {"x": X}, NAMES))


RULE = SpanRule("token_type_ids", "image")
SPANS = RULE.samples(2, LENGTH)[2]
SPAN_NAMES = {"x": "batch . sequence", "span_ids": "batch sequence"}


def _by_types(overlay):
    """A mask of token types, which a model computes from its own input."""

    def mask(x, span_ids):
        types = RULE.types(span_ids)
        starts = (types == 1) & (torch.nn.functional.pad(types, (1, 0))[:, :-1] == 0)
        blocks = torch.where(types == 1, starts.cumsum(1), 0)
        same = (blocks[:, None, :, None] == blocks[:, None, None, :]) & (blocks > 0)[:, None, :, None]
        return overlay(_distance(x), same)

    return mask


WITH_SPANS = {
    "causal": (lambda distance, same: (distance >= 0) | same, (0, False)),
    "a window over all": (lambda distance, same: ((distance >= 0) | same) & (distance < 3), (3, False)),
    "a window over text": (lambda distance, same: ((distance >= 0) & (distance < 3)) | same, (3, True)),
}


@pytest.mark.parametrize(("overlay", "wanted"), WITH_SPANS.values(), ids=WITH_SPANS)
def test_masks_of_token_types_become_spans(overlay, wanted):
    mask = _by_types(overlay)
    step = partial(masks, spans=RULE)
    inputs = {"x": X, "span_ids": SPANS}
    program = check_applies(step, lambda x, span_ids: _attention(x, mask(x, span_ids)), inputs, names=SPAN_NAMES)
    (node,) = program.outputs
    given = AttentionArguments(**arguments(node))
    assert (given.mask, given.causal, given.spans.target) == (None, True, "span_ids")
    assert (given.window, given.whole_spans) == wanted
    assert len(program.graph.nodes) == 4, "nothing is left of the mask"


OTHER_SPANS = {
    "the next token is not of an image": lambda distance, same: (distance >= -1) | same,
    "an image sees all tokens": lambda distance, same: (distance >= 0) | same.any(-1, keepdim=True),
    "all images are one": lambda distance, same: (
        (distance >= 0) | (same.any(-1)[..., None] & same.any(-2)[..., None, :])
    ),
    "an image sees half of itself": lambda distance, same: (distance >= 0) | (same & (distance > -3)),
    "a bidirectional window": lambda distance, same: ((distance >= 0) | same) & (distance.abs() < 3),
    "full": lambda distance, same: same | (distance > -1000),
}


@pytest.mark.parametrize("overlay", OTHER_SPANS.values(), ids=OTHER_SPANS)
def test_masks_that_depend_otherwise_on_token_types_are_refused(overlay):
    mask = _by_types(overlay)
    program = captured(lambda x, s: _attention(x, mask(x, s)), {"x": X, "span_ids": SPANS}, SPAN_NAMES)
    with pytest.raises(UnsupportedFeature, match="depends on `token_type_ids` in another way than was expected"):
        masks(program, spans=RULE)


def test_a_model_that_ignores_token_types_is_refused():
    program = captured(lambda x, s: _attention(x, _distance(x) >= 0) + s[0, 0], {"x": X, "span_ids": SPANS}, SPAN_NAMES)
    with pytest.raises(UnsupportedFeature, match="no attention mask of the model depends on `token_type_ids`"):
        masks(program, spans=RULE)


def test_without_a_rule_token_types_are_values():
    mask = _by_types(WITH_SPANS["causal"][0])
    program = captured(lambda x, s: _attention(x, mask(x, s)), {"x": X, "span_ids": SPANS}, SPAN_NAMES)
    with pytest.raises(UnsupportedFeature, match="depends on the values of `span_ids`"):
        masks(program)
