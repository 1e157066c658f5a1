"""The plugin's reading of its length inputs; what it refuses is in test_runtime.py, seen from outside."""

from __future__ import annotations

import pytest
import torch

from ditto.errors import ShapeError
from ditto.targets.trtllm.sequences import Sequence, sequences


def given(kinds, totals, pasts, contexts):
    columns = {
        "host_request_types": kinds,
        "sequence_length": totals,
        "host_past_key_value_lengths": pasts,
        "context_lengths": contexts,
        "host_context_lengths": contexts,
        "host_sink_token_length": [0],
        "kv_cache_block_offsets": [0],
        "host_kv_cache_block_offsets": [0],
    }
    return {name: torch.tensor(numbers, dtype=torch.int32) for name, numbers in columns.items()}


def test_prompts_parts_of_prompts_and_generation():
    """The table of the contract, LLM 4.2: a whole prompt of 5, its part [4, 7) of another, 3 tokens after one of 6."""
    found = sequences(given([0, 0, 1], [5, 7, 9], [5, 7, 8], [5, 3, 6]), 9, continues_prompts=True)
    assert found == [Sequence(0, 5, 5), Sequence(5, 3, 7), Sequence(8, 1, 9)]
    assert [sequence.past for sequence in found] == [0, 4, 8]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([0], [5], [5], [0]), "a prompt of 0 tokens"),
        (([0], [2], [2], [5]), "sequence_length 2 is less than its 5 tokens"),
        (([0], [7], [7], [5]), "a part of a prompt without paged context attention"),
        (([1], [5], [4], [5]), "4 tokens are less than the prompt's 5"),
        (([0, 0], [5], [5], [5]), "are not all of 2"),
    ],
)
def test_lengths_that_cannot_be_are_refused(columns, message):
    with pytest.raises(ShapeError, match=message):
        sequences(given(*columns), 5, continues_prompts=False)
