"""Digests are SHA-256 of the content; long files are hashed in pieces, and every byte counts."""

from __future__ import annotations

import hashlib

import pytest

from ditto.engine import digest
from ditto.engine.digest import file_record


def test_a_record_is_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    record = file_record(tmp_path / "a")
    assert record.bytes == 3
    assert record.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_an_empty_file_has_a_record(tmp_path):
    (tmp_path / "a").touch()
    assert file_record(tmp_path / "a").sha256 == hashlib.sha256().hexdigest()


@pytest.mark.parametrize("size", [99, 100, 101, 200, 250])
def test_a_long_file_is_hashed_by_its_pieces(tmp_path, monkeypatch, size):
    monkeypatch.setattr(digest, "PIECE_BYTES", 100)
    monkeypatch.setattr(digest, "_BLOCK_BYTES", 50)
    data = bytes(index % 251 for index in range(size))
    (tmp_path / "a").write_bytes(data)
    pieces = [hashlib.sha256(data[start : start + 100]).digest() for start in range(0, size, 100)]
    wanted = pieces[0] if len(pieces) == 1 else hashlib.sha256(b"".join(pieces)).digest()
    assert file_record(tmp_path / "a").sha256 == wanted.hex()


def test_every_byte_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(digest, "PIECE_BYTES", 8)
    monkeypatch.setattr(digest, "_BLOCK_BYTES", 4)
    data = bytes(range(30))
    seen = set()
    for index in range(30):
        (tmp_path / "a").write_bytes(data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :])
        seen.add(file_record(tmp_path / "a").sha256)
    assert len(seen) == 30
