"""Where an answer leaves Hugging Face's is told, with how sure Hugging Face is there."""

from __future__ import annotations

import re

import torch

from benchmarks.smollm2 import difference
from tests.support.greedy import greedy
from tests.support.models import llama


def test_the_first_other_token_is_named_with_the_gap_of_the_logits():
    model, ids = llama().eval(), [3, 9, 4, 17]
    own = tuple(greedy(model, ids, 6))
    other = (*own[:3], (own[3] + 1) % 100, *own[4:])
    prompt = torch.tensor([ids])
    found = re.fullmatch(r"differs from token 3 on, .* logit is (\S+) above .*", difference(model, prompt, own, other))
    assert found is not None
    with torch.no_grad():
        logits = model(torch.tensor([[*ids, *own[:3]]])).logits[0, -1]
    wanted = float(logits.max() - logits[other[3]])
    assert wanted > 0
    assert abs(float(found[1]) - wanted) < 0.06 * wanted
    assert difference(model, prompt, own, own[:4]) == "4 tokens instead of 6, the same as far as they go"
