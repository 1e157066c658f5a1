"""Kernels are kept between processes, and never in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from ditto.runtime.kernels import Kernels, cache_folder


class Cache:
    """Stands in for `IRuntimeCache`: content, and whether it is taken for this machine's."""

    def __init__(self, content=b"", fits=True):
        self.content, self.fits = content, fits

    def serialize(self):
        return self.content

    def deserialize(self, content):
        if self.fits:
            self.content = content
        return self.fits


def test_what_one_process_compiled_the_next_one_has(tmp_path):
    path = tmp_path / "not yet" / "engine.bin"
    Kernels(Cache(b"compiled"), path).save()
    cache = Cache()
    Kernels(cache, path)
    assert cache.content == b"compiled"
    assert [file.name for file in path.parent.iterdir()] == ["engine.bin"]


def test_kernels_of_another_gpu_are_replaced(tmp_path):
    path = tmp_path / "engine.bin"
    path.write_bytes(b"those of another GPU")
    kernels = Kernels(Cache(b"ours", fits=False), path)
    kernels.save()
    assert path.read_bytes() == b"ours"


def test_a_file_is_written_only_for_new_kernels(tmp_path):
    path = tmp_path / "engine.bin"
    path.write_bytes(b"known")
    kernels = Kernels(Cache(), path)
    path.unlink()
    kernels.save()
    assert not path.exists()
    kernels.cache.content = b"known and new"
    kernels.save()
    assert path.read_bytes() == b"known and new"


def test_without_a_place_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Kernels(Cache(b"compiled"), None).save()
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_take_its_place_leaves_nothing_behind(tmp_path):
    path = tmp_path / "engine.bin"
    path.mkdir()
    Kernels(Cache(b"compiled"), path).save()
    assert [file.name for file in tmp_path.iterdir()] == ["engine.bin"]


def test_a_place_that_cannot_be_written_is_no_failure(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    Kernels(Cache(b"compiled"), tmp_path / "file" / "engine.bin").save()


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"DITTO_CACHE": "/here"}, Path("/here")),
        ({"DITTO_CACHE": ""}, None),
        ({"XDG_CACHE_HOME": "/caches"}, Path("/caches/ditto")),
        ({"HOME": "/home/user"}, Path("/home/user/.cache/ditto")),
    ],
)
def test_where_kernels_are_kept(monkeypatch, variables, folder):
    for name in ("DITTO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == folder
