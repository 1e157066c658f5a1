"""Metrics of a server in Prometheus' form, with the names that vLLM uses after its prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ditto.text.image_cache import ImageCache
from ditto.text.scheduler import Completion

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


class Metrics:
    """Counters and histograms of one server.

    Args:
        model: name of the model.
        counts: returns the number of requests in progress, and of those that wait.
        images: the cache of image embeddings.
    """

    def __init__(self, model: str, counts: Callable[[], tuple[int, int]], images: ImageCache) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()
        self._model = model
        label = ["model_name"]

        def add(kind: Any, name: str, text: str, labels: list[str] = label, **more: Any) -> Any:
            return kind(f"ditto:{name}", text, labels, registry=self._registry, **more)

        running = add(Gauge, "num_requests_running", "Requests in progress.")
        waiting = add(Gauge, "num_requests_waiting", "Requests that wait for a row of the engine.")
        running.labels(model).set_function(lambda: counts()[0])
        waiting.labels(model).set_function(lambda: counts()[1])
        self._registry.register(_ImageCacheCollector(model, images))
        self._prompt = add(Counter, "prompt_tokens", "Tokens of prompts.")
        self._generated = add(Counter, "generation_tokens", "Tokens of answers.")
        self._success = add(Counter, "request_success", "Answers.", [*label, "finished_reason"])
        self._failed = add(Counter, "request_errors", "Requests answered with an error.", [*label, "status"])
        self._first = add(
            Histogram, "time_to_first_token_seconds", "From the request to its first token.", buckets=_SECONDS
        )
        self._step = add(Histogram, "time_per_output_token_seconds", "Between tokens.", buckets=_STEP_SECONDS)
        self._whole = add(Histogram, "e2e_request_latency_seconds", "From the request to its end.", buckets=_SECONDS)
        self._queue = add(Histogram, "request_queue_time_seconds", "Before a row was free.", buckets=_SECONDS)
        for each in (self._prompt, self._generated, self._first, self._step, self._whole, self._queue):
            each.labels(model)  # present from the beginning

    def answered(self, answer: Completion) -> None:
        """Count an answer."""
        seconds, count = answer.seconds, answer.completion_tokens
        before = seconds["preprocess"] + seconds["queue"]
        self._prompt.labels(self._model).inc(answer.prompt_tokens)
        self._generated.labels(self._model).inc(count)
        self._success.labels(self._model, answer.finish_reason).inc()
        self._first.labels(self._model).observe(before + seconds["first_token"])
        self._whole.labels(self._model).observe(seconds["total"])
        self._queue.labels(self._model).observe(seconds["queue"])
        if count > 1:
            self._step.labels(self._model).observe((seconds["total"] - before - seconds["first_token"]) / (count - 1))

    def failed(self, status: int) -> None:
        """Count a request that was answered with an error."""
        self._failed.labels(self._model, str(status)).inc()

    def text(self) -> bytes:
        """All metrics."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)


class _ImageCacheCollector:
    def __init__(self, model: str, images: ImageCache) -> None:
        self._model, self._images = model, images

    def collect(self) -> Iterator[Any]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        for kind, name, text, value in (
            (CounterMetricFamily, "mm_cache_queries", "Images looked up in the cache.", self._images.queries),
            (CounterMetricFamily, "mm_cache_hits", "Images found there.", self._images.hits),
            (GaugeMetricFamily, "mm_cache_bytes", "Bytes of the cached embeddings.", self._images.bytes),
        ):
            family = kind(f"ditto:{name}", text, labels=["model_name"])
            family.add_metric([self._model], value)
            yield family
