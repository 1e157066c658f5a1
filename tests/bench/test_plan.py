"""A plan is cut to what the tree takes, or refused."""

from __future__ import annotations

import pytest

from ditto.bench.plan import ANSWER, DECODE, PREFILL, VISION, Plan, Task
from ditto.errors import ConfigError
from ditto.verify.inputs import rows_per_image


def test_everything_is_measured_that_the_tree_has(llava_tree):
    plan = Plan(new_tokens=8).fitted(llava_tree)
    assert plan.batches == (1, 2)
    assert [task.kind for task in plan.tasks(llava_tree)] == [VISION] * 2 + [PREFILL] * 2 + [DECODE] * 2 + [ANSWER]
    assert plan.tasks(llava_tree)[-1] == Task(ANSWER, 2, rows_per_image(llava_tree) + 24, 8)


def test_a_text_model_has_no_vision_tasks(llama_tree):
    plan = Plan(new_tokens=8, contexts=(5, 9), batches=(2,)).fitted(llama_tree)
    assert rows_per_image(llama_tree) == 0
    assert plan.tasks(llama_tree) == [
        Task(PREFILL, 2, 5, 1),
        Task(DECODE, 2, 5, 8),
        Task(PREFILL, 2, 9, 1),
        Task(DECODE, 2, 9, 8),
    ]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(batches=(3,)), "batch 3 is outside of the engine's range: 1 to 2"),
        (Plan(batches=(0,)), "batch 0"),
        (Plan(contexts=(40,), new_tokens=30), "a prompt of 40 tokens with 30 new ones"),
        (Plan(new_tokens=64), "a prompt of 1 tokens with 64 new ones"),
    ],
)
def test_what_does_not_fit_is_refused(plan, message, llava_tree):
    with pytest.raises(ConfigError, match=message):
        plan.fitted(llava_tree)
