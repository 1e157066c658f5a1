"""Metrics count what was answered."""

from __future__ import annotations

from types import SimpleNamespace

from ditto.serve.metrics import Metrics
from ditto.text.image_cache import ImageCache
from ditto.text.scheduler import Completion

SECONDS = {"preprocess": 0.1, "queue": 0.2, "vision": 0.3, "first_token": 0.7, "total": 3.0}


def test_answers_are_counted():
    images = ImageCache(SimpleNamespace(device=None), 1)
    images.queries, images.hits, images.bytes = 9, 4, 100
    metrics = Metrics("m", lambda: (2, 5), images)
    metrics.answered(Completion("a", (1, 2, 3, 4, 5), "stop", 7, SECONDS))
    metrics.failed(429)
    lines = set(metrics.text().decode().splitlines())
    assert {
        'ditto:num_requests_running{model_name="m"} 2.0',
        'ditto:num_requests_waiting{model_name="m"} 5.0',
        'ditto:mm_cache_queries_total{model_name="m"} 9.0',
        'ditto:mm_cache_hits_total{model_name="m"} 4.0',
        'ditto:mm_cache_bytes{model_name="m"} 100.0',
        'ditto:prompt_tokens_total{model_name="m"} 7.0',
        'ditto:generation_tokens_total{model_name="m"} 5.0',
        'ditto:request_success_total{finished_reason="stop",model_name="m"} 1.0',
        'ditto:request_errors_total{model_name="m",status="429"} 1.0',
        'ditto:time_to_first_token_seconds_sum{model_name="m"} 1.0',
        'ditto:e2e_request_latency_seconds_sum{model_name="m"} 3.0',
        'ditto:time_per_output_token_seconds_sum{model_name="m"} 0.5',
    } <= lines
