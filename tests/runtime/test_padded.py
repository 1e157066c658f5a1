"""Turns become padded rows: neighbours' prompts together, then one token of every row."""

from __future__ import annotations

import pytest
import torch

from ditto.runtime import Request, open_session
from ditto.runtime.padded import PaddedRunner
from ditto.runtime.session import ScheduledRow


class Recorder(PaddedRunner):
    """Keeps what it is asked; the logits of a row are its number in the batch."""

    def __init__(self, session, batch):
        super().__init__(session, batch)
        self.calls = []

    def run(self, rows, given):
        names = ("input_ids", "position_ids", "last_token_ids", "write_indices")
        self.calls.append((rows, *(given[name].tolist() for name in names), given["prompt_embedding_table"]))
        self.spans = given["span_ids"].tolist()
        return torch.arange(rows.start, rows.stop)[:, None].float()


@pytest.fixture
def runner(llava_tree):
    return Recorder(open_session(llava_tree, "reference"), 4)


def scheduled_at(row, ids=(), past=0, features=None):
    return ScheduledRow(row, Request(tuple(ids), features), past)


NOTHING = torch.zeros(4, dtype=torch.int64)


def test_prompts_side_by_side_are_one_call_padded_at_the_end(runner):
    logits = runner.step([scheduled_at(1, [7, 8, 9]), scheduled_at(0, [5])], NOTHING)
    assert logits[:, 0].tolist() == [1, 0]
    (rows, ids, positions, last, written, table), *more = runner.calls
    assert (rows, ids, last, written, more) == (slice(0, 2), [[5, 0, 0], [7, 8, 9]], [0, 2], [0, 0], [])
    assert positions == [[0, 1, 2]] * 2
    assert table.shape == (1, 64) and not table.any()


def test_prompts_that_join_do_not_touch_the_rows_between_them(runner):
    runner.step([scheduled_at(1, [7, 8, 9])], NOTHING)
    logits = runner.step(
        [scheduled_at(1, past=3), scheduled_at(0, [5, 6]), scheduled_at(2, [1, 2])], torch.tensor([9, 4, 9, 9])
    )
    assert logits[:, 0].tolist() == [1, 0, 2]
    assert [call[0] for call in runner.calls[1:]] == [slice(0, 1), slice(2, 3), slice(0, 4)]


def test_the_rows_without_a_turn_compute_a_filler_behind_what_they_hold(runner):
    runner.step([scheduled_at(0, [5, 6]), scheduled_at(1, [7, 8, 9])], NOTHING)
    runner.step([scheduled_at(1, past=3)], torch.tensor([30, 4, 32, 33]))
    _, ids, positions, last, written, _ = runner.calls[-1]
    assert ids == [[30], [4], [32], [33]]
    assert positions == [[2], [3], [0], [0]] and written == [2, 3, 0, 0] and last == [0] * 4
    runner.leave(0)
    runner.step([scheduled_at(1, past=4)], NOTHING)
    assert runner.calls[-1][4] == [0, 4, 0, 0]


def test_each_row_has_its_own_part_of_the_prompt_table(runner):
    first, second = torch.ones(2, 64), 2 * torch.ones(1, 64)
    runner.step(
        [scheduled_at(0, [5, 128, 129], features=first), scheduled_at(1, [6]), scheduled_at(2, [128], features=second)],
        NOTHING,
    )
    _, ids, _, _, _, table = runner.calls[0]
    assert ids == [[5, 128, 129], [6, 0, 0], [130, 0, 0]]
    assert torch.equal(table, torch.cat([first, second]))


def test_padding_and_new_tokens_are_of_no_span(runner):
    spans = torch.tensor([1, 1], dtype=torch.int32)
    first = ScheduledRow(0, Request((5, 6), spans=spans), 0)
    runner.step([first, scheduled_at(1, [7, 8, 9])], NOTHING)
    assert runner.spans == [[1, 1, 0], [0, 0, 0]]
    runner.step([scheduled_at(0, past=2)], NOTHING)
    assert runner.spans == [[0]] * 4


def test_prompts_whose_images_do_not_fit_the_table_together_wait(runner):
    images = torch.ones(runner._limits.max_prompt_embedding_table_size - 1, 64)
    scheduled = [scheduled_at(0, [128], features=images), scheduled_at(1, [128, 129], features=images[:2])]
    assert runner.takes(scheduled[:1])
    assert not runner.takes(scheduled)
    assert runner.takes([scheduled_at(0, past=1, features=images), scheduled[1]])
