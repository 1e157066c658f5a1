"""Kernels are kept between processes, and never in the way."""

from __future__ import annotations

from ditto.runtime.runtime_cache import RuntimeCache


class Cache:
    """Stands in for `IRuntimeCache`: content, and whether it is taken for this machine's. It is its own
    `IRuntimeConfig`, which says what it was given."""

    def __init__(self, content=b"", fits=True):
        self.content, self.fits = content, fits
        self.given = None

    def create_runtime_cache(self):
        return self

    def set_runtime_cache(self, cache):
        self.given = cache

    def serialize(self):
        return self.content

    def deserialize(self, content):
        if self.fits:
            self.content = content
        return self.fits


def kernels_with(cache, path):
    """Kernels of which an engine's configuration has been given."""
    made = RuntimeCache(path)
    made.give(cache)
    return made


def test_all_engines_have_the_same(tmp_path):
    first, second = Cache(), Cache()
    made = kernels_with(first, tmp_path / "engine.bin")
    made.give(second)
    assert first.given is second.given is first


def test_what_one_process_compiled_the_next_one_has(tmp_path):
    path = tmp_path / "not yet" / "engine.bin"
    kernels_with(Cache(b"compiled"), path).save()
    cache = Cache()
    kernels_with(cache, path)
    assert cache.content == b"compiled"
    assert [file.name for file in path.parent.iterdir()] == ["engine.bin"]


def test_kernels_of_another_gpu_are_replaced(tmp_path):
    path = tmp_path / "engine.bin"
    path.write_bytes(b"those of another GPU")
    kernels = kernels_with(Cache(b"ours", fits=False), path)
    kernels.save()
    assert path.read_bytes() == b"ours"


def test_a_file_is_written_only_for_new_kernels(tmp_path):
    path = tmp_path / "engine.bin"
    path.write_bytes(b"known")
    cache = Cache()
    kernels = kernels_with(cache, path)
    path.unlink()
    kernels.save()
    assert not path.exists()
    cache.content = b"known and new"
    kernels.save()
    assert path.read_bytes() == b"known and new"


def test_they_are_kept_when_a_shape_is_new(tmp_path):
    cache, path = Cache(), tmp_path / "engine.bin"
    kernels = kernels_with(cache, path)
    cache.content = b"one"
    kernels.keep()
    assert not path.exists()
    kernels.meets(("x", (1, 4)))
    kernels.keep()
    assert path.read_bytes() == b"one"
    cache.content = b"more"
    kernels.meets(("x", (1, 4)))
    kernels.keep()
    assert path.read_bytes() == b"one"
    kernels.meets(("x", (2, 4)))
    kernels.keep()
    assert path.read_bytes() == b"more"


def test_before_any_engine_there_is_nothing_to_keep(tmp_path):
    RuntimeCache(tmp_path / "engine.bin").save()
    assert not list(tmp_path.iterdir())


def test_without_a_place_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kernels_with(Cache(b"compiled"), None).save()
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_take_its_place_leaves_nothing_behind(tmp_path):
    path = tmp_path / "engine.bin"
    path.mkdir()
    kernels_with(Cache(b"compiled"), path).save()
    assert [file.name for file in tmp_path.iterdir()] == ["engine.bin"]


def test_a_place_that_cannot_be_written_is_no_failure(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    kernels_with(Cache(b"compiled"), tmp_path / "file" / "engine.bin").save()
