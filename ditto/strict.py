"""Strict structuring of JSON values, without conversions between types.

Neither 3.5 nor "3" is accepted for an integer, nor a string for a list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_origin

import attrs
from cattrs import Converter, transform_error
from cattrs.cols import list_structure_factory
from cattrs.errors import BaseValidationError
from cattrs.gen import make_dict_structure_fn, make_mapping_structure_fn
from cattrs.v import format_exception

from ditto.errors import ConfigError

_PLAIN = (bool, int, float, str)


def strict_converter(known_keys_only: bool = True) -> Converter:
    """Create a cattrs converter that does not convert between types.

    Args:
        known_keys_only: whether a key that the class lacks is an error.
    """
    converter = Converter(forbid_extra_keys=known_keys_only)
    for kind in _PLAIN:
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook_factory(attrs.has, _class_hook)
    converter.register_structure_hook_factory(_is_list, _list_hook)
    converter.register_structure_hook_factory(_is_mapping, _mapping_hook)
    return converter


def faults_of(error: BaseValidationError) -> str:
    """Description of the first five errors, with their paths."""
    return "; ".join(transform_error(error, format_exception=_message)[:5])


def _message(error: BaseException, kind: type | None) -> str:
    """Message of one error: its own if it has one, otherwise cattrs's."""
    if isinstance(error, ConfigError):
        return error.cause
    if isinstance(error, (TypeError, ValueError)) and str(error):
        return str(error)
    return format_exception(error, kind)


def _exactly(value: Any, kind: type) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TypeError(f"{_shown(value)} is not of type {kind.__name__}")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _is_list(kind: Any) -> bool:
    return get_origin(kind) in (list, Sequence)


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) in (dict, Mapping)


def _class_hook(kind: Any, converter: Converter) -> Any:
    inner: Any = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=converter.forbid_extra_keys)
    return lambda value, kind: inner(_as_object(value), kind)


def _as_object(value: Any) -> Any:
    if not isinstance(value, dict):
        raise TypeError(f"{_shown(value)} is not an object")
    return value


def _list_hook(kind: Any, converter: Converter) -> Any:
    inner = list_structure_factory(kind, converter)

    def structure(value: Any, kind: Any) -> Any:
        if not isinstance(value, list):
            raise TypeError(f"{_shown(value)} is not a list")
        return inner(value, kind)

    return structure


def _mapping_hook(kind: Any, converter: Converter) -> Any:
    inner: Any = make_mapping_structure_fn(kind, converter)

    return lambda value, kind: inner(_as_object(value), kind)
