"""Validation of a manifest's values, so that later code can rely on them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from attrs import asdict, frozen
from cattrs.errors import BaseValidationError

from ditto.configs import TARGETS, TensorRTConfig, TrtllmConfig
from ditto.configs.build import EngineLayout, ProfileKind, WeightPlacement
from ditto.engine.assembly import NEWLINE_FILE
from ditto.engine.paths import listed
from ditto.errors import TreeError
from ditto.outputs import MANIFEST
from ditto.progress import StageRecord
from ditto.strict import faults_of, strict_converter

if TYPE_CHECKING:
    from ditto.engine.manifest import Component, Manifest

PARTS = ("vision", "llm")
_FLOATING = ("float32", "float16", "bfloat16")
_DTYPES = (*_FLOATING, "int64", "int32", "int8", "uint8", "bool", "float8_e4m3fn")
# Dimensions and token ids are int32 in engines, file sizes and limits int64.
_MOST, _MOST_BYTES = 2**31 - 1, 2**63 - 1
_NAME = r"[A-Za-z_]\w*"
_FACTOR = rf"(?:\d{{1,18}}|-?{_NAME}|-\d{{1,18}})"
_TERM = rf"{_FACTOR}(?:\*{_FACTOR})*"
_DIM = rf"{_TERM}(?: [+-] {_TERM})*"
_SPEC = re.compile(rf"(?:{'|'.join(_DTYPES)})\[(?:{_DIM}(?:, {_DIM})*)?\]", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_STRICT, _LENIENT = strict_converter(), strict_converter(known_keys_only=False)
_CAPABILITY = re.compile(r"\d{1,3}\.\d{1,3}", re.ASCII)


@frozen(kw_only=True)
class _Settings:
    """Known settings of a component; others are allowed."""

    compute_capabilities: list[str]
    optimize: Literal["portable", "latency", "size"]
    weights: WeightPlacement
    engines: EngineLayout
    profiles: ProfileKind
    tuning: str
    tensorrt: TensorRTConfig
    max_batch_size: int
    max_input_len: int = 0
    max_seq_len: int = 0
    max_num_tokens: int = 0
    max_prompt_embedding_table_size: int = 0
    opt_input_len: int = 0
    quantization: Literal["none", "int4", "int8"] = "none"

    @property
    def limits(self) -> list[int]:
        return [value for value in asdict(self).values() if isinstance(value, int)]


def faults(manifest: Manifest) -> Iterator[str]:
    """Describe the faults in a manifest's values, each with its place.

    The types are checked before.
    """
    if manifest.target not in TARGETS:
        yield f"target {manifest.target!r} is not one of {', '.join(TARGETS)}"
    for place, value in _numbers(asdict(manifest), "$"):
        if not -_MOST_BYTES <= value <= _MOST_BYTES:
            yield f"a number is out of range @ {place}"
    yield from _files(manifest)
    yield from _settings(manifest)
    yield from _limits(manifest)
    yield from _decoder(manifest)
    yield from _tokens(manifest)
    for name, component in manifest.components.items():
        if name != component.spec.name:
            yield f"the spec of {name!r} is of {component.spec.name!r}"
        if component.spec.part not in PARTS:
            yield f"{name!r} runs {component.spec.part!r}, which is not one of {', '.join(PARTS)}"
        elif component.spec.part not in manifest.components:
            yield f"the first engine of {component.spec.part!r} is missing"
        for fault in _component(manifest, component):
            yield f"{fault} @ $.components[{name!r}]"


def _numbers(value: Any, place: str) -> Iterator[tuple[str, int | float]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, f"{place}.{name}")
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _numbers(inner, f"{place}[{number}]")
    elif isinstance(value, (int, float)):
        yield place, value


def _files(manifest: Manifest) -> Iterator[str]:
    for name, record in manifest.files.items():
        try:
            if listed(name) != name or name in (".", MANIFEST):
                yield f"{name!r} is not a file of a tree @ $.files"
        except TreeError as error:
            yield f"{error.cause} @ $.files"
        if record.bytes < 0:
            yield f"{record.bytes} is not a size in bytes @ $.files[{name!r}]"
        if not _DIGEST.fullmatch(record.sha256):
            yield f"{record.sha256[:70]!r} is not a SHA-256 digest @ $.files[{name!r}]"
    checkpoint = manifest.checkpoint
    if checkpoint is not None and not _DIGEST.fullmatch(checkpoint.identity):
        yield f"{checkpoint.identity[:70]!r} is not a SHA-256 digest @ $.checkpoint.identity"
    for number, stage in enumerate(manifest.stages):
        try:
            record = _STRICT.structure(stage, StageRecord)
        except BaseValidationError as error:
            yield f"{faults_of(error)} of a stage @ $.stages[{number}]"
            continue
        if record.seconds < 0 or record.peak_bytes < 0:
            yield f"the duration of a stage is negative @ $.stages[{number}]"


def _settings(manifest: Manifest) -> Iterator[str]:
    wanted: dict[str, type] = {component.spec.part: _Settings for component in manifest.components.values()}
    if "trtllm" in manifest.settings:
        wanted["trtllm"] = TrtllmConfig
    for name, kind in wanted.items():
        try:
            stated = _LENIENT.structure(manifest.settings.get(name), kind)
        except (BaseValidationError, TypeError) as error:
            reason = faults_of(error) if isinstance(error, BaseValidationError) else str(error)
            yield f"settings of {name}: {reason}"
            continue
        if isinstance(stated, _Settings) and not all(map(_CAPABILITY.fullmatch, stated.compute_capabilities)):
            yield f"settings of {name}: {stated.compute_capabilities} are not compute capabilities"
        if isinstance(stated, _Settings) and not _is_tuning(stated.tuning):
            yield f"settings of {name}: {stated.tuning!r} is not a value of tuning"
        if isinstance(stated, _Settings) and not all(0 <= value <= _MOST for value in stated.limits):
            yield f"settings of {name}: a limit is out of range"


def _is_tuning(value: str) -> bool:
    return value in ("auto", "none") or _CAPABILITY.fullmatch(value) is not None


def _limits(manifest: Manifest) -> Iterator[str]:
    stated = {"llm": manifest.limits.llm, "vision": manifest.limits.max_images}
    for name in stated.keys() & manifest.components.keys():
        if stated[name] is None:
            yield f"the limits of {name} are not stated @ $.limits"
    for place, value in _numbers(asdict(manifest.limits), "$.limits"):
        if not 0 <= value <= _MOST:
            yield f"a limit is out of range @ {place}"


def _decoder(manifest: Manifest) -> Iterator[str]:
    if manifest.decoder is None:
        if "llm" in manifest.components:
            yield "the sizes of llm are not stated @ $.decoder"
        return
    for place, value in _numbers(asdict(manifest.decoder), "$.decoder"):
        if not 1 <= value <= _MOST:
            yield f"a size is out of range @ {place}"


def _tokens(manifest: Manifest) -> Iterator[str]:
    tokens = manifest.tokens
    if tokens is None:
        return
    if not 1 <= tokens.vocab_size <= _MOST:
        yield f"{tokens.vocab_size} is not the size of a vocabulary @ $.tokens.vocab_size"
    ids = {
        "end": tokens.end,
        "pad": [tokens.pad],
        "image": [] if tokens.image is None else [tokens.image],
        "uncounted": [] if tokens.uncounted is None else [tokens.uncounted],
    }
    for name, values in ids.items():
        least = 0 if name in ("image", "uncounted") else -1  # -1 means none in older Hugging Face files
        if not all(least <= value <= _MOST for value in values):
            yield f"{values} are not token ids @ $.tokens.{name}"


def _component(manifest: Manifest, component: Component) -> Iterator[str]:
    files = component.engine_files
    wanted = ["network.json", "network.safetensors", *files]
    wanted += [component.weights] if component.weights != "checkpoint" else []
    wanted += [NEWLINE_FILE] if component.assembly is not None else []
    yield from (fault for name in wanted if (fault := _unlisted(manifest, component.directory, name)))
    if len(set(files)) != len(files):
        yield "an engine file is named twice"
    if not all(component.engines):
        yield "a rank has no engine file"
    if len(component.engines) > 1:
        yield f"there are engines of {len(component.engines)} ranks, and engines of one rank are supported"
    for name, spec in {**component.inputs, **component.outputs}.items():
        if not _SPEC.fullmatch(spec):
            yield f"{spec[:70]!r} is not a type and shape of {name!r}"
    if not set(component.shared) <= set(component.outputs) or not set(component.shared.values()) <= set(
        component.inputs
    ):
        yield "an output shares the memory of an input, and one of them is not there"
    for kind, count in component.layers.items():
        if not 0 <= count <= _MOST:
            yield f"{count} is not a number of layers of kind {kind!r}"
    yield from _spec(component)


def _unlisted(manifest: Manifest, directory: str, name: str) -> str:
    try:
        return "" if listed(directory, name) in manifest.files else f"{name!r} is not among the files of the tree"
    except TreeError as error:
        return error.cause


def _spec(component: Component) -> Iterator[str]:
    spec = component.spec
    if spec.dtype not in _FLOATING:
        yield f"dtype {spec.dtype!r} is not one of {', '.join(_FLOATING)}"
    if not _is_tuning(spec.tuning):
        yield f"{spec.tuning!r} is not a value of tuning"
    if not all(map(_CAPABILITY.fullmatch, spec.compute_capabilities)):
        yield f"{list(spec.compute_capabilities)} are not compute capabilities"
    known = {name for text in component.inputs.values() for name in re.findall(_NAME, text.partition("[")[2])}
    for number, profile in enumerate(spec.profiles):
        if any(size.max > _MOST for size in profile.ranges.values()):
            yield f"profile {number} has a range up to more than {_MOST}"
        if not known <= set(profile.ranges):
            yield f"profile {number} has no sizes of {', '.join(sorted(known - set(profile.ranges)))}"
    if spec.kv_length_step is not None and not 1 <= spec.kv_length_step <= _MOST:
        yield f"kv_length_step is {spec.kv_length_step}"
    if not spec.profiles:
        yield "there is no profile"
