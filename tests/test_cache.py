"""Where what can be made again is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from ditto.cache import cache_directory


@pytest.mark.parametrize(
    ("variables", "directory"),
    [
        ({"DITTO_CACHE": "/here"}, Path("/here")),
        ({"DITTO_CACHE": ""}, None),
        ({"XDG_CACHE_HOME": "/caches"}, Path("/caches/ditto")),
        ({"HOME": "/home/user"}, Path("/home/user/.cache/ditto")),
    ],
)
def test_where_kernels_are_kept(monkeypatch, variables, directory):
    for name in ("DITTO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_directory() == directory
