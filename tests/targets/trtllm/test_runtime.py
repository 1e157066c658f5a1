"""The runtime's part, played on the CPU: sequences join, go on and leave in one batch, and their logits are those of
Hugging Face; what breaks the contract is refused, or shows."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from ditto.errors import ShapeError
from ditto.network import Network, Spec
from ditto.reference import RELATIVE_ERROR, relative_error
from ditto.targets.trtllm.runtime import bound
from ditto.targets.trtllm.step import StepMaker
from tests.support.decoding import eager, in_dtype
from tests.support.models import TEXT_MODELS, llama, rope
from tests.support.texts import Text, interleaved, packed_tree, runtime_of, texts

EXACT = RELATIVE_ERROR[torch.float32]


# Yarn's tables are the model's own: its rope stays in the graph, by `position_ids`.
YARN = rope(rope_type="yarn", factor=2.0, original_max_position_embeddings=32)
MODELS = {**TEXT_MODELS, "llama with yarn rope scaling": lambda: llama(**YARN)}


@pytest.mark.drawn(6)
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_hugging_face(name, tmp_path):
    model = MODELS[name]()
    results = interleaved(runtime_of(packed_tree(model, tmp_path / "tree")), model)
    assert len(results) == 15
    assert max(relative_error(*pair) for pair in results) <= EXACT


@pytest.mark.parametrize("version", ["0.18.2", "0.20.0"])
def test_layers_find_their_keys_in_the_pools_of_each_version(version, tmp_path):
    """0.18: the place in the pool is a field of the plugin. From 0.20 on: a pool for each window."""
    model = TEXT_MODELS["gemma2 with soft-caps and windows"]()
    runtime = runtime_of(packed_tree(model, tmp_path / "tree", version=version))
    assert max(relative_error(*pair) for pair in interleaved(runtime, model)) <= EXACT


@pytest.mark.parametrize(("dtype", "block"), [(torch.float16, 16), (torch.float16, 32), (torch.bfloat16, 64)])
def test_half_precision_is_as_near_as_that_of_hugging_face(dtype, block, tmp_path):
    """No farther from Hugging Face in float32 than Hugging Face in the same dtype is, times 1.5."""
    exact, rounded = llama(), in_dtype(llama(), dtype)
    runtime = runtime_of(packed_tree(exact, tmp_path / "tree", block=block, dtype=dtype))
    found, wanted, theirs = (torch.stack(logits) for logits in zip(*interleaved(runtime, exact, rounded), strict=True))
    assert relative_error(found, wanted) <= 1.5 * relative_error(theirs, wanted)


@pytest.mark.parametrize("name", ["mistral with a window", "gemma2 with soft-caps and windows"])
def test_a_prompt_may_come_in_parts(name, tmp_path):
    model, rounded = TEXT_MODELS[name](), in_dtype(TEXT_MODELS[name](), torch.float16)
    runtime = runtime_of(packed_tree(model, tmp_path / "tree", dtype=torch.float16))
    first, second, third = texts()
    runtime.step([first.part()])
    runtime.step([third.part(7), first.part()])
    logits = runtime.step([second.part(), first.part(), third.part()])
    assert third.past == 19
    for text, found in zip((second, first, third), logits, strict=True):
        with torch.no_grad():
            wanted, theirs = (eager(each)(input_ids=text.tokens).logits[0, -1] for each in (model, rounded))
        assert relative_error(found, wanted) <= 2 * relative_error(theirs, wanted)


def test_prompts_in_parts_need_paged_context_attention(tiny):
    """Which float32 has not."""
    runtime = runtime_of(tiny[1])
    first, *_ = texts()
    runtime.step([first.part(7)])
    with pytest.raises(ShapeError, match="a part of a prompt without paged context attention"):
        runtime.step([first.part()])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A Mistral with a window, and its tree."""
    model = TEXT_MODELS["mistral with a window"]()
    return model, packed_tree(model, tmp_path_factory.mktemp("packed") / "tree")


def swapped(tensor, dim):
    return tensor.flip(dim).contiguous()


def with_both(change):
    """The same change of the offsets for host and device."""

    def changed(inputs):
        for name in ("kv_cache_block_offsets", "host_kv_cache_block_offsets"):
            inputs[name] = change(inputs[name])

    return changed


def replaced(name, change):
    def changed(inputs):
        inputs[name] = change(inputs[name])

    return changed


def longer(inputs):
    """Lengths of the generating sequence that agree with each other, but not with what its cache holds."""
    for name in ("sequence_length", "host_past_key_value_lengths"):
        inputs[name][1] += 1


# Faults of a step in which sequence 1 begins and sequence 0 goes on (they stand in this order), and what is said.
REFUSED = {
    "generation before context": (
        replaced("host_request_types", lambda x: swapped(x, 0)),
        "a context request after a generation request",
    ),
    "a request of no kind": (replaced("host_request_types", lambda x: x + 1), "are not all context 0 or generation 1"),
    "past instead of total for a prompt": (
        replaced("host_past_key_value_lengths", lambda x: x * torch.tensor([0, 1], dtype=x.dtype)),
        "host_past_key_value_lengths 0 is not sequence_length 5 of a prompt",
    ),
    "total instead of past for generation": (
        replaced("host_past_key_value_lengths", lambda x: x + torch.tensor([0, 1], dtype=x.dtype)),
        "host_past_key_value_lengths 15 is not one less than sequence_length 15",
    ),
    "past instead of total for generation": (
        replaced("sequence_length", lambda x: x - torch.tensor([0, 1], dtype=x.dtype)),
        "host_past_key_value_lengths 14 is not one less than sequence_length 14",
    ),
    "host and device disagree on the prompt": (
        replaced("host_context_lengths", lambda x: x + torch.tensor([0, 1], dtype=x.dtype)),
        "context_lengths 14 is not host_context_lengths 15",
    ),
    "the cache's length for the prompt's": (
        lambda inputs: [
            inputs[name].add_(torch.tensor([0, 1])) for name in ("context_lengths", "host_context_lengths")
        ],
        "14 tokens are less than the prompt's 15",
    ),
    "a prompt longer than its tokens": (
        lambda inputs: [
            inputs[name].add_(torch.tensor([1, 0]))
            for name in (
                "context_lengths",
                "host_context_lengths",
                "sequence_length",
                "host_past_key_value_lengths",
            )
        ],
        "the lengths add up to 7 tokens, there are 6",
    ),
    "offsets for the host alone": (
        replaced("kv_cache_block_offsets", lambda x: swapped(x, 1)),
        "kv_cache_block_offsets differ between host and device",
    ),
    "sink tokens": (replaced("host_sink_token_length", lambda x: x + 4), "sink tokens are not part"),
    "too few sequences in one input": (replaced("sequence_length", lambda x: x[:1]), "the others make it"),
}
SHOWN = {
    "blocks of another sequence": with_both(lambda x: swapped(x, 1)),
    "keys and values swapped": with_both(lambda x: swapped(x, 2)),
    "offsets in blocks, not in half-blocks": with_both(lambda x: x // 2),
    "offsets that forget the layers": with_both(lambda x: x // 4 * 2 + x % 2),
    "layers swapped in the pool": replaced("host_kv_cache_pool_mapping", lambda x: swapped(x, 0)),
    "a longer past": longer,
    "a wider window": replaced("host_max_attention_window_sizes", lambda x: x + 1),
    "no window in one layer": replaced(
        "host_max_attention_window_sizes", lambda x: x + torch.tensor([0, 60], dtype=x.dtype)
    ),
    "last tokens counted from 0": replaced("last_token_ids", lambda x: x - 1),
    "tokens in the order of arrival": replaced("input_ids", lambda x: x.roll(1)),
}


def faulty_step(tiny, monkeypatch, fault):
    model, tree = tiny
    runtime = runtime_of(tree)
    first, second, _ = texts()
    runtime.step([first.part()])
    right = StepMaker.inputs

    def wrong(self, parts, pools):
        inputs = right(self, parts, pools)
        fault(inputs)
        return inputs

    monkeypatch.setattr(StepMaker, "inputs", wrong)
    logits = runtime.step([first.part(), second.part()])
    wanted = [eager(model)(input_ids=text.tokens).logits[0, -1] for text in (first, second)]
    return [relative_error(*pair) for pair in zip(logits, wanted, strict=True)]


def test_without_a_fault_the_step_is_right(tiny, monkeypatch):
    assert max(faulty_step(tiny, monkeypatch, lambda inputs: None)) <= EXACT


@pytest.mark.parametrize("name", REFUSED)
def test_inputs_that_contradict_the_contract_are_refused(name, tiny, monkeypatch):
    fault, message = REFUSED[name]
    with pytest.raises(ShapeError, match=message):
        faulty_step(tiny, monkeypatch, fault)


@pytest.mark.parametrize("name", SHOWN)
def test_inputs_that_are_wrong_show_in_the_logits(name, tiny, monkeypatch):
    errors = torch.tensor(faulty_step(tiny, monkeypatch, SHOWN[name]))
    assert bool((errors.isnan() | (errors > 1e-2)).any())


def test_tokens_that_nobody_wrote_are_nan(tiny):
    runtime = runtime_of(tiny[1])
    text = Text(0, [5, 6, 7], [8, 9])
    runtime.step([text.part()])
    text.past += 1
    assert runtime.step([text.part()]).isnan().all()


def test_an_input_that_the_runtime_does_not_bind_is_named():
    network = Network("llm")
    network.input("attention_mask", Spec((1,), torch.int32))
    with pytest.raises(ShapeError, match="the runtime has nothing for the network's attention_mask"):
        bound(network, {}, {})


def test_sizes_outside_the_profile_are_refused(tiny):
    runtime = runtime_of(tiny[1], sequences=4)
    runtime.maker = evolve(runtime.maker, max_batch_size=4)
    with pytest.raises(ShapeError, match="last_token_ids = 4, the profile goes from 1 to 3"):
        runtime.step([Text(number, [5, 6], []).part() for number in range(4)])
