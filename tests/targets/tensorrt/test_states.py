"""States of rows: each row's own last tokens, whatever its length, whatever else runs in the batch."""

from __future__ import annotations

import pytest
import torch

from benchmarks.tiny_models import tiny_model
from ditto import LlmBuilder
from ditto.errors import UnsupportedFeature
from ditto.runtime import Request, open_session
from ditto.runtime.generate import Batch
from tests.support.describing import engines_of
from tests.support.models import TRANSFORMERS_5

pytestmark = pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4.51 has none of these classes")
LENGTHS, NEW = (7, 19, 1, 12, 3), (6, 3, 9, 5, 4)


def _builder(model, engines="combined"):
    builder = LlmBuilder.from_model(model).with_batch(2).with_target("tensorrt-rtx").with_engines(engines)
    return builder.with_max_input_len(24).with_max_seq_len(32)


def _prompts():
    return [
        torch.randint(5, 400, (length,), generator=torch.Generator().manual_seed(length)).tolist() for length in LENGTHS
    ]


def _answer(model, ids, count):
    ids = list(ids)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[-count:]


@pytest.mark.drawn(3)
@pytest.mark.parametrize("engines", ["combined", "separate"])
@pytest.mark.parametrize("kind", ["lfm2", "qwen3_5_text", "mamba2"])
def test_requests_that_join_and_leave_a_batch_get_hugging_faces_tokens(tmp_path, kind, engines):
    model = tiny_model(kind)
    session = open_session(_builder(model, engines).build(tmp_path / "tree"), "reference")
    with Batch(session, 2) as batch:
        given = zip(_prompts(), NEW, strict=True)
        answers = [batch.join(Request(tuple(ids)), count) for ids, count in given]
        while batch.busy:
            batch.step()
    for answer, ids, count in zip(answers, _prompts(), NEW, strict=True):
        wanted = _answer(model, ids, count)
        assert answer.made == wanted[: len(answer.made)]
        assert len(answer.made) == count or answer.made[-1] in session.tokens.end


def test_a_state_has_two_slots_that_share_memory_and_count_in_the_plan():
    engines = engines_of(_builder(tiny_model("lfm2"), "separate"))
    for engine in engines.values():
        network = engine.network
        assert str(network.inputs["past_conv_0"]) == "float32[batch, 1, 4, 128]"  # 2 slots of 2 tokens
        assert network.shared["present_conv_0"] == "past_conv_0"
    first = engines["llm"]
    keys_and_values = 2 * 2 * 32 * 32 * 4  # 2 KV heads, 32 slots of 32 values
    assert first.part.cache_bytes(first.network) == 2 * (keys_and_values + 4 * 128 * 4)


def test_tensorrt_llm_refuses_states():
    with pytest.raises(UnsupportedFeature, match="engines for TensorRT-LLM keep keys") as refused:
        engines_of(_builder(tiny_model("lfm2")).with_target("trtllm").with_engines("combined"))
    assert "--target tensorrt" in str(refused.value)
