"""Builds that cannot fit are refused with both figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from ditto.builders import preflight
from ditto.builders.preflight import available_memory, check_resources, free_disk
from ditto.errors import InsufficientResourcesError
from ditto.units import size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_000_000, "2.0 MB"), (13_480_000_000, "13.5 GB")],
)
def test_sizes_are_said_as_a_person_says_them(count, text):
    assert size_text(count) == text


def test_what_is_available_is_less_than_the_machine_has():
    (total,) = (line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    (swap,) = (line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("SwapTotal"))
    assert 0 < available_memory() < sum(int(line.split()[1]) * 1024 for line in (total, swap))


@pytest.mark.parametrize(("limit", "wanted"), [("3000000", 2_000_000), ("max", None)])
def test_a_control_groups_limit_counts(tmp_path, monkeypatch, limit, wanted):
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    monkeypatch.setattr(preflight, "_CGROUP", tmp_path)
    found = available_memory()
    assert found == wanted if wanted else found > 100_000_000


def test_free_disk_is_that_of_the_directory_to_be(tmp_path):
    assert free_disk(tmp_path / "not" / "yet" / "there") == pytest.approx(free_disk(tmp_path), rel=0.2)


def test_what_fits_is_let_through(tmp_path):
    check_resources(tmp_path, 1000, 1000)


@pytest.mark.parametrize(
    ("disk", "memory", "message"),
    [
        (10**18, 0, r"needs 1000000000\.0 GB of disk, \d+\.\d [GM]B are free"),
        (0, 10**18, r"needs 1000000000\.0 GB of memory, \d+\.\d [GM]B are available"),
    ],
)
def test_what_does_not_fit_is_refused_with_figures(tmp_path, disk, memory, message):
    with pytest.raises(InsufficientResourcesError, match=message) as caught:
        check_resources(tmp_path, disk, memory)
    assert "--weights external" in str(caught.value)
