"""Classification of attention masks by their values.

The mask that a model computes is evaluated for a given sequence length and compared with a full, a causal and a
windowed mask. A mask that depends on token types is compared with causal masks with spans, for some prompts. Any other
mask stays a tensor if it is a constant of the model, and is refused if it depends on sequence lengths, because an
engine with a KV cache cannot apply it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import asdict, evolve, frozen
from torch import Tensor, fx

from ditto.errors import UnsupportedFeature, at
from ditto.network import dims
from ditto.ops.attention import AttentionArguments, visible, with_spans
from ditto.ops.spans import SPAN_IDS, SpanRule
from ditto.ops.traits import Trait, traits_of
from ditto.program import Program, evaluate
from ditto.rewrite.rule import arguments

# An added score below this is equivalent to minus infinity: models use the smallest float16 value or less.
MASKED = -1e4


@frozen
class MaskForm:
    """Form of a mask: full, causal, or a causal window of a number of tokens (0 for no window).

    Args:
        spans: the input of span ids of a causal mask with spans, or None.
        whole_spans: whether the window applies to text only.
    """

    causal: bool
    window: int
    spans: fx.Node | None = None
    whole_spans: bool = False


def classify_masks(
    program: Program, sizes: Mapping[str, int], is_decoder: bool = True, spans: SpanRule | None = None
) -> int:
    """Replace mask operands of `ditto.attention` by `causal`, `window` and spans; return the number of replacements.

    Args:
        sizes: maximum sizes of the named dimensions in the engine.
        is_decoder: whether masks have to fit a KV cache. Those of a tower may follow from the values of inputs, and be
            a learned bias.
        spans: what the input of span ids means; None without such an input.
    Raises:
        UnsupportedFeature: a mask depends on values, adds a bias, or has a form that engines do not support.
    """
    known: dict[fx.Node, MaskForm | Tensor] = {}
    count = 0
    for node in list(program.graph.nodes):
        if node.target != torch.ops.ditto.attention.default:
            continue
        given: AttentionArguments[fx.Node] = AttentionArguments(**arguments(node))
        mask = given.mask
        if mask is None or (not is_decoder and _is_computed(program, mask)):
            continue
        with at(program.place(node)):
            if mask not in known:
                known[mask] = _look_at(program, mask, sizes, spans)
        found = known[mask]
        if isinstance(found, MaskForm):
            given = evolve(given, mask=None, **asdict(found, recurse=False))
        elif not program.is_constant(mask) or mask.meta["val"].dtype != torch.bool:
            with program.graph.inserting_before(node):
                given = evolve(given, mask=program.constant(found, "mask"))
        node.args, node.kwargs = given.args, {}
        count += 1
    if spans is not None and not any(isinstance(form, MaskForm) and form.spans is not None for form in known.values()):
        raise UnsupportedFeature(
            f"no attention mask of the model depends on `{spans.input}`",
            remedy="state no span rule for this family",
        )
    program.sweep()
    return count


def _is_computed(program: Program, mask: fx.Node) -> bool:
    """Whether a tower's engine computes a mask: one that depends on values of inputs, or a bias that it learned."""
    is_bias = mask.meta["val"].dtype != torch.bool
    return bool(_sources_of_values(program, mask)) or (is_bias and _is_learned(program, mask))


def _is_learned(program: Program, mask: fx.Node) -> bool:
    """Whether a mask depends on weights."""
    needed = program.needed([mask], through=_uses_values)
    return any(node.op == "get_attr" and str(node.target) in program.parameters for node in needed)


def _look_at(program: Program, mask: fx.Node, sizes: Mapping[str, int], spans: SpanRule | None) -> MaskForm | Tensor:
    sources = _sources_of_values(program, mask)
    if spans is not None and [source.target for source in sources] == [SPAN_IDS]:
        return _form_with_spans(program, mask, sizes, sources[0], spans)
    for source in sources:
        raise UnsupportedFeature(
            f"the attention mask depends on the values of `{source.target}`",
            remedy="only masks that follow from positions can be built into an engine",
        )
    values = evaluate_at(program, mask, sizes)
    seen = values if values.dtype == torch.bool else values > MASKED
    if values.dtype != torch.bool and bool((values[seen] != 0).any()):
        raise UnsupportedFeature(
            "attention scores get an added bias (ALiBi or relative positions)",
            remedy="models with position biases are not supported",
        )
    form = form_of_mask(seen)
    if form is not None:
        return form
    if program.spec(mask).is_static:
        return seen
    chunk = _chunk(seen)
    if chunk:
        raise UnsupportedFeature(
            f"tokens attend within chunks of {chunk} tokens, and sequences go up to {seen.shape[-1]}",
            remedy=f"lower max_seq_len to {chunk}",
        )
    raise UnsupportedFeature(
        "the attention mask is neither full nor causal nor a causal window",
        remedy="other masks (chunks, prefixes, bidirectional windows) are not supported for decoders",
    )


def _chunk(seen: Tensor) -> int:
    """Length of the chunks within which a mask is causal; 0 for any other mask."""
    first = seen.reshape(-1, *seen.shape[-2:])[0]
    if first.shape[0] != first.shape[1] or not bool((seen == first).all()):
        return 0
    length = int(first.shape[0])
    chunk = max(int(first[:, 0].sum()), 1)  # the tokens that attend to the first one
    numbers = torch.arange(length) // chunk
    return chunk if torch.equal(first, visible(length) & (numbers[:, None] == numbers)) else 0


def _form_with_spans(
    program: Program, mask: fx.Node, sizes: Mapping[str, int], source: fx.Node, rule: SpanRule
) -> MaskForm:
    """The form of a mask that depends on span ids alone, by its values for some prompts."""
    samples = rule.samples(*(dims.evaluate(size, sizes) for size in program.spec(source).shape))
    found = [evaluate_at(program, mask, sizes, {SPAN_IDS: sample}) for sample in samples]
    form = form_of_mask(found[0]) if found[0].dtype == torch.bool else None
    if form is not None and form.causal:
        for whole in (False, True):
            wanted = (with_spans(sample, form.window, whole) for sample in samples)
            if all(map(torch.equal, found, wanted)):
                return MaskForm(True, form.window, source, whole)
    raise UnsupportedFeature(
        f"the attention mask depends on `{rule.input}` in another way than was expected",
        remedy="only text and whole spans of tokens that attend to each other can be told apart",
    )


def form_of_mask(seen: Tensor) -> MaskForm | None:
    """The form of a mask bool [..., S, K], true where a query attends to a key; None for any other form."""
    if bool(seen.all()):
        return MaskForm(causal=False, window=0)
    first = seen.reshape(-1, *seen.shape[-2:])[0]
    if bool((seen == first).all()) and first.shape[0] == first.shape[1]:
        length = first.shape[0]
        if torch.equal(first, visible(length)):
            return MaskForm(causal=True, window=0)
        window = int(first[-1].sum())
        if 0 < window < length and torch.equal(first, visible(length, window)):
            return MaskForm(causal=True, window=window)
    return None


def evaluate_at(
    program: Program, node: fx.Node, sizes: Mapping[str, int], given: Mapping[str, Tensor] | None = None
) -> Tensor:
    """The value of a node that follows from shapes and given inputs alone.

    Args:
        given: values of inputs by name; other inputs are zeros.
    Raises:
        UnsupportedFeature: it depends on a weight.
    """
    needed = program.needed([node])
    inputs = {
        str(source.target): torch.zeros(
            [dims.evaluate(size, sizes) for size in program.spec(source).shape], dtype=source.meta["val"].dtype
        )
        for source in program.inputs
        if source in needed
    }
    (value,) = evaluate(program, {**inputs, **(given or {})}, _no_parameter, (node,))
    return value


def computed_from_shapes(program: Program, node: fx.Node) -> bool:
    """Whether a value follows from the shapes of inputs and from constants, whatever the inputs' values."""
    return not _sources_of_values(program, node)


def _no_parameter(name: str) -> Tensor:
    raise UnsupportedFeature(f"the attention mask depends on the weight `{name}`")


def _sources_of_values(program: Program, mask: fx.Node) -> list[fx.Node]:
    """The inputs whose values, not only shapes, a mask depends on."""
    needed = program.needed([mask], through=_uses_values)
    return [node for node in program.inputs if node in needed]


def _uses_values(node: fx.Node) -> bool:
    return Trait.OF_SHAPE not in traits_of(node.target)
