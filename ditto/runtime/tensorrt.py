"""TensorRT session: runs the engines of a plugin-free tree on the GPU.

B rows of a batch, S new tokens of each.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from ditto.bindings import TensorRT
from ditto.engine import Component, EngineTree, Phase
from ditto.errors import DeviceError
from ditto.network import Spec
from ditto.network.dims import evaluate
from ditto.network.weight import Weight
from ditto.ops.spans import SPAN_IDS
from ditto.runtime.encoding import EncoderShapes
from ditto.runtime.execution import Execution, Parts
from ditto.runtime.graphs import GraphedCallable, in_order
from ditto.runtime.memory import MemoryPlan
from ditto.runtime.padded import PaddedPrompt, PaddedRunner, padded_spans
from ditto.runtime.profiles import (
    component_for,
    decode_profile,
    dynamic_prefill_profile,
    kv_length_bucket,
    prefill_profile,
    profile_for,
)
from ditto.runtime.session import LlmRunner, Session
from ditto.runtime.static_calls import StaticCall, StaticPrefill
from ditto.runtime.weights import bound_weights

_TF32_SINCE = (8, 0)  # compute capability of the first GPUs that multiply in TF32
# Image sizes whose call of the vision engine is kept, for engines that accept any size.
_MOST_SIZES = 8


class TensorRTSession(Session):
    """A session that runs a tree's engines on a GPU; its creation starts loading in the background.

    Args:
        tree: the tree to run.
        trt: the library that built it.
        device: the GPU.
    Raises:
        DeviceError: the GPU has too little memory.
    """

    name = "tensorrt"

    def __init__(self, tree: EngineTree, trt: TensorRT, device: torch.device) -> None:
        super().__init__(tree)
        self.device = device
        self.rounds_to_tf32 = trt.rounds_to_tf32 and torch.cuda.get_device_capability(device) >= _TF32_SINCE
        self._plan = MemoryPlan.of(tree)
        self._plan.check(*torch.cuda.mem_get_info(device))
        self.stream = torch.cuda.Stream(device, priority=-1)  # other streams have lower priority
        loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ditto-load")
        self._loading = loader.submit(Loaded, tree, trt, device, self.stream)
        loader.shutdown(wait=False)
        self._idle: list[KVCache] = []
        self._vision: dict[tuple[tuple[str, int], ...], _VisionCall] = {}

    @property
    def loaded(self) -> Loaded:
        """The loaded engines; waits until they are.

        Raises:
            DeviceError: TensorRT cannot load them here.
        """
        return self._loading.result()

    @cached_property
    def prefill(self) -> Execution:
        """Execution for prompts of any batch size and length."""
        # Kernels for each length may be compiled in the background.
        return self.loaded.execution(
            component_for(self.tree, Phase.PREFILL), dynamic_prefill_profile(self.tree), eager=False
        )

    @override
    def encode(self, inputs: Mapping[str, Tensor]) -> Tensor:
        with self.working():
            sizes = self.encoder.sizes(inputs)
            key = tuple(sizes.items())
            if key not in self._vision:
                while self.encoder.batch is None and len(self._vision) >= _MOST_SIZES:
                    self._vision.pop(next(iter(self._vision)))
                self._vision[key] = _VisionCall(self.encoder, self.tree.component("vision"), self.loaded, sizes)
            return self._vision[key](inputs)

    @override
    def start(self, batch: int) -> LlmRunner:
        _, rows = decode_profile(self.tree, batch)
        return self._cache(rows).runner(batch)

    def working(self) -> AbstractContextManager[None]:
        """Context in which torch's work runs in the session's stream, in order with work around it."""
        return in_order(self.stream)

    def give_back(self, cache: KVCache) -> None:
        """Return the cache of a finished batch for reuse, and save the compiled kernels."""
        self._idle.append(cache)
        self.loaded.keep_kernels()

    def _cache(self, rows: int) -> KVCache:
        """An unused KV cache: a large enough idle one, or a new one that replaces the idle ones.

        Raises:
            DeviceError: the GPU has too little memory.
        """
        for cache in self._idle:
            if cache.rows >= rows:
                self._idle.remove(cache)
                return cache
        self._idle.clear()
        shared = self.tree.component("llm").shared
        if "prefill" in vars(self):  # it may have one of the caches bound
            self.prefill.unbind([*shared, *shared.values()])
        gc.collect()  # caches and runners are reference cycles
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(self.device)
        plan = self._plan.with_rows(rows).with_scratch(self.loaded.scratch.numel())
        plan.check(free + plan.loaded, total)
        with self.working():
            return KVCache(self, rows)


class Loaded:
    """Engines and weights on the GPU, with one scratch buffer, as engines never run concurrently."""

    def __init__(self, tree: EngineTree, trt: TensorRT, device: torch.device, stream: torch.cuda.Stream) -> None:
        with torch.cuda.device(device), torch.cuda.stream(stream):
            self._engines = {name: Parts.of(tree, name, trt, device) for name in tree.manifest.components}
            held: dict[Weight, Tensor] = {}  # decode and prefill share weights
            self._weights = {name: dict(bound_weights(tree, name, device, held)) for name in self._engines}
            size = max(engine.scratch_bytes for engine in self._engines.values())
            self.scratch = torch.empty(max(size, 1), dtype=torch.uint8, device=device)

    def execution(self, name: str, profile: int, eager: bool = True) -> Execution:
        """Create an execution of a component on a profile, with weights bound.

        A CUDA graph needs an eager one.
        """
        execution = self._engines[name].execution(profile, self.scratch, eager)
        execution.bind(self._weights[name])
        return execution

    def keep_kernels(self) -> None:
        """Save the kernels compiled so far for the next process."""
        for engine in self._engines.values():
            engine.keep_kernels()


class KVCache:
    """The KV cache of a batch, and the runners that use its first rows."""

    def __init__(self, session: TensorRTSession, rows: int) -> None:
        component = session.tree.component("llm")
        self.rows = rows
        self._session, self._runners = session, dict[int, TensorRTRunner]()
        self._pasts = {past: Spec.parse(component.inputs[past]) for past in component.shared.values()}
        try:
            # Zeros: slots that are not written yet are masked, but must not be NaN.
            self.tensors = {
                name: torch.zeros(_shape(spec, batch=rows), dtype=spec.dtype, device=session.device)
                for name, spec in self._pasts.items()
            }
        except torch.cuda.OutOfMemoryError as error:
            raise DeviceError(
                f"the KV cache of {rows} rows does not fit into the GPU's memory",
                remedy="send fewer prompts at once, or build with a smaller --max-seq-len",
            ) from error

    def runner(self, batch: int) -> TensorRTRunner:
        """Runner of the first `batch` rows."""
        if batch not in self._runners:
            with self._session.working():
                self._runners[batch] = TensorRTRunner(self._session, self, batch)
        runner = self._runners[batch]
        runner.open()
        return runner

    def bound(self, rows: slice) -> dict[str, Tensor]:
        """Cache inputs and outputs (in the same memory), by name, for neighbouring rows."""
        shared = self._session.tree.component("llm").shared
        parts = {name: tensor[rows] for name, tensor in self.tensors.items()}
        return {**parts, **{present: parts[past] for present, past in shared.items()}}


class TensorRTRunner(PaddedRunner):
    """Runner of a batch on the GPU.

    Decode is a CUDA graph; so is prefill, from its third call, where a profile has exactly its static shapes. Other
    prompts run directly.
    """

    lookahead = 2

    def __init__(self, session: TensorRTSession, cache: KVCache, batch: int) -> None:
        self.device = session.device
        super().__init__(session, batch)
        self._session, self._cache = session, cache
        self._inputs = session.tree.component("llm").inputs
        self._prompts: dict[tuple[int, int], StaticPrefill] = {}
        _, self._rows = decode_profile(session.tree, batch)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int32, device=self.device)

        # Inputs and outputs of the CUDA graph. The KV length of a row is also its next position, if those have one
        # axis; else it differs from the positions by the row's shift.
        rows = self._rows
        self._ids, self._written, self._moving, first = zeros(rows, 1), zeros(rows), zeros(rows), zeros(rows)
        self._shifts, self._positions = zeros(rows), zeros(self._position_axes, rows, 1)
        self._logits = self._new_logits(rows)
        self._bound = {
            "input_ids": self._ids,
            "position_ids": self._written[:, None] if self._position_axes == 1 else self._positions,
            "last_token_ids": first,
            "write_indices": self._written,
            "prompt_embedding_table": self._no_images,
            SPAN_IDS: zeros(rows, 1),  # new tokens are text
            "logits": self._logits,
            **cache.bound(slice(0, rows)),
        }
        self._sampled = torch.zeros(batch, dtype=torch.int64, device=self.device)
        self._slots = torch.arange(session.limits.max_seq_len, dtype=torch.int32, device=self.device)
        self._on_device: tuple[list[int], list[bool], list[int]] = ([], [], [])
        self._steps: dict[int, GraphedCallable] = {}

    @property
    def is_recorded(self) -> bool:
        """Whether decode replays a CUDA graph."""
        return any(step.is_recorded for step in self._steps.values())

    @property
    def has_recorded_prompts(self) -> bool:
        """Whether any prefill replays a CUDA graph."""
        return any(call.is_recorded for call in self._prompts.values())

    def open(self) -> None:
        """Begin a batch."""
        self._cached, self._deltas = [0] * self._batch, [0] * self._batch

    @override
    def sampled(self, batch: int) -> Tensor:
        assert batch == self._batch
        return self._sampled

    @override
    def run_prompts(self, rows: slice, prompts: Sequence[PaddedPrompt], table: Tensor | None) -> Tensor:
        call = prefill_profile(self._session.tree, len(prompts), max(len(prompt.ids) for prompt in prompts))
        if not call.is_fixed:
            return self._run_padded(rows, prompts, call.length, table)
        of_tokens: dict[str, Tensor] = {}
        if self._position_axes > 1:
            of_tokens["position_ids"] = self._padded_positions(prompts, call.length)
        if self._limits.has_spans:
            of_tokens[SPAN_IDS] = padded_spans(prompts, call.length)
        given = of_tokens if table is None else {**of_tokens, "prompt_embedding_table": table}
        key = (call.profile, rows.start)
        if key not in self._prompts:
            execution = self._session.loaded.execution(component_for(self._session.tree, Phase.PREFILL), call.profile)
            most = max(self._limits.max_prompt_embedding_table_size, 1)
            table_of_all = self._no_images.new_zeros(most, self._no_images.shape[1])
            bound = {
                **self._known({"prompt_embedding_table": table_of_all}),
                **{name: tensor.to(self.device) for name, tensor in of_tokens.items()},
                **self._cache.bound(rows),
                "logits": self._new_logits(len(prompts)),
            }
            self._prompts[key] = StaticPrefill(execution, len(prompts), call.length, self._tokens.pad, bound)
        return self._prompts[key]([prompt.ids for prompt in prompts], given)

    @override
    def run(self, rows: slice, given: Mapping[str, Tensor]) -> Tensor:
        logits = self._new_logits(len(given["last_token_ids"]))
        sent = {name: tensor.to(self.device, non_blocking=True) for name, tensor in self._known(given).items()}
        prefill = self._session.prefill
        prefill.bind({**sent, "logits": logits, **self._cache.bound(rows)})
        prefill.enqueue()
        return logits

    @override
    def run_next(self, sampled: Tensor, cached: Sequence[int], moving: Sequence[bool]) -> Tensor:
        if self._on_device != (cached, moving, self._deltas):
            self._shifts[: self._batch].copy_(torch.tensor(self._deltas, dtype=torch.int32), non_blocking=True)
            self._written[: self._batch].copy_(torch.tensor(cached, dtype=torch.int32), non_blocking=True)
            self._moving[: self._batch].copy_(torch.tensor(moving, dtype=torch.int32), non_blocking=True)
        self._ids[: self._batch].copy_(sampled[:, None])
        self._step(kv_length_bucket(self._session.tree, max(cached) + 1, len(self._slots)))()
        moved = [count + goes for count, goes in zip(cached, moving, strict=True)]
        self._on_device = (moved, list(moving), list(self._deltas))
        return self._logits[: self._batch]

    @override
    def working(self) -> AbstractContextManager[None]:
        return self._session.working()

    @override
    def reading(self, tensor: Tensor) -> Callable[[], list[Any]]:
        here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        here.copy_(tensor, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()

        def read() -> list[Any]:
            arrived.synchronize()
            return here.tolist()

        return read

    @override
    def close(self) -> None:
        self._session.give_back(self._cache)

    def _step(self, kv_length: int) -> GraphedCallable:
        """Decode step of every row over the first `kv_length` slots of the KV cache."""
        if kv_length not in self._steps:
            name = component_for(self._session.tree, Phase.DECODE)
            component = self._session.tree.component(name)
            profile, _ = decode_profile(self._session.tree, self._batch, kv_length)
            execution = self._session.loaded.execution(name, profile)
            bound = {**self._bound, "cache_slots": self._slots[:kv_length]}
            known = {name: tensor for name, tensor in bound.items() if name in {*component.inputs, *component.outputs}}

            def work() -> None:
                if self._position_axes > 1:
                    self._positions.copy_((self._written + self._shifts)[:, None].expand_as(self._positions))
                execution.bind(known)
                execution.enqueue()
                self._written += self._moving

            self._steps[kv_length] = GraphedCallable(work)
        return self._steps[kv_length]

    def _known(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors that are inputs of the engine: a text model has no prompt table."""
        return {name: tensor for name, tensor in tensors.items() if name in self._inputs}

    def _new_logits(self, rows: int) -> Tensor:
        spec = Spec.parse(self._session.tree.component("llm").outputs["logits"])
        return torch.empty(_shape(spec, batch=rows), dtype=spec.dtype, device=self.device)


class _VisionCall:
    """Call of the vision engine for fixed sizes of its dimensions."""

    def __init__(self, shapes: EncoderShapes, component: Component, loaded: Loaded, sizes: Mapping[str, int]) -> None:
        profile, taken = 0, dict(sizes)
        if shapes.batch is not None:
            profile, taken[shapes.batch] = profile_for(component, Phase.ENCODE, shapes.batch, sizes[shapes.batch])
        specs = {**shapes.inputs, shapes.output_name: shapes.output}
        bound = {
            name: torch.zeros(_shape(spec, **taken), dtype=spec.dtype, device=loaded.scratch.device)
            for name, spec in specs.items()
        }
        self._rows = evaluate(shapes.output.shape[0], sizes)
        self._inputs, self._embeddings = tuple(shapes.inputs), bound[shapes.output_name]
        self._call = StaticCall(loaded.execution("vision", profile), bound)

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Image embeddings in newly allocated memory."""
        self._call({name: inputs[name] for name in self._inputs})
        return self._embeddings[: self._rows].clone()


def _shape(spec: Spec, **sizes: int) -> tuple[int, ...]:
    return tuple(evaluate(dim, sizes) for dim in spec.shape)
