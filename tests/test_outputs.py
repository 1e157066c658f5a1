"""What a user names for output takes nobody's place: directories, trees, files, the working directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ditto.cli.main import main
from ditto.engine import staged
from ditto.errors import OutputError
from ditto.outputs import check_directory, check_file, write_file

MARK = "a mark"


def everything(directory):
    """All that lies below a directory: names, kinds and contents."""
    return {
        path.relative_to(directory): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in directory.rglob("*")
    }


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A working directory three directories down, a tree, a checkpoint, and links to them."""
    (tmp_path / "up" / "here" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "llm").mkdir(parents=True)
    (tmp_path / "tree" / "ditto.json").write_text("{}")
    (tmp_path / "tree" / "llm" / "config.json").write_text("{}")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "file").write_text("years")
    (tmp_path / "empty").mkdir()
    (tmp_path / "to here").symlink_to("up/here")
    (tmp_path / "to tree").symlink_to("tree")
    (tmp_path / "to model").symlink_to("model")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path / "up" / "here")
    return tmp_path


DIRECTORIES = {
    ".": "is or holds the working directory",
    "..": "is or holds the working directory",
    "../..": "is or holds the working directory",
    "/": "is or holds the working directory",
    "{}/to here": "is or holds the working directory",
    "{}/up/here/below/..": "is or holds the working directory",
    "{}/tree/new": "lies inside an engine tree",
    "{}/tree/llm": "lies inside an engine tree",
    "{}/to tree/llm/new": "lies inside an engine tree",
    "{}/model": "is the checkpoint",
    "{}/model/engines/new": "lies inside the checkpoint",
    "{}/to model/new": "lies inside the checkpoint",
    "{}/file": "the output is a file",
    "{}/pipe": "the output is a file",
    "/dev/null": "the output is a file",
    "{}/file/new": "Not a directory",
    "{}/loop": "Too many levels of symbolic links",
    "{}/" + "n" * 300: "File name too long",
    "{}/nul\0": "null",
}


@pytest.mark.parametrize("out", DIRECTORIES)
def test_a_directory_that_would_take_somebodys_place_is_refused(out, world):
    before = everything(world)
    with (
        pytest.raises(OutputError, match=DIRECTORIES[out]),
        staged(out.format(world), {"the checkpoint": world / "model"}) as directory,
    ):
        directory.joinpath("written").touch()
    assert everything(world) == before


def test_a_directory_that_holds_the_checkpoint_is_refused(world):
    (world / "tree" / "model").mkdir()
    with pytest.raises(OutputError, match="holds the checkpoint"):
        check_directory(world / "tree", {"the checkpoint": world / "tree" / "model"})


def test_the_working_directory_may_be_filled_where_it_is_not_replaced(world):
    assert check_directory(world / "up" / "here", replaced=False) == world / "up" / "here"


def test_new_folders_and_trees_elsewhere_are_taken(world):
    for place in ("new", "below/deep/new", "../beside", "../../tree", "../../to tree", "../../empty"):
        check_directory(Path(place), {"the checkpoint": world / "model"})


def test_without_a_working_directory_nothing_relative_can_be_written(world, monkeypatch):
    (world / "gone").mkdir()
    monkeypatch.chdir(world / "gone")
    (world / "gone").rmdir()
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        check_directory(Path("new"))
    check_directory(world / "new")


FILES = {
    "{}/file": "this command did not write it",
    "{}/tree/ditto.json": "among the files of an engine tree",
    "{}/to tree/ditto.json": "among the files of an engine tree",
    "{}/tree/llm/config.json": "among the files of an engine tree",
    "{}/tree/llm/new": "among the files of an engine tree",
    "{}/model/config.json": "this command did not write it",
    "{}/empty": "the output is a directory",
    "{}/nowhere/file": "there is no such directory to write to",
    "{}/file/file": "there is no such directory to write to",
    "{}/loop": "cannot be written",
    "{}/" + "n" * 300: "cannot be written: File name too long",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_ours_is_not_written_to(name, world):
    before = everything(world)
    with pytest.raises(OutputError, match=FILES[name]):
        write_file(Path(name.format(world)), b"new", MARK)
    assert everything(world) == before


def test_a_pipe_that_nobody_reads_keeps_nobody_waiting(world):
    with pytest.raises(OutputError, match="cannot be written"):
        write_file(world / "pipe", b"new", MARK)


def test_a_pipe_that_is_read_gets_everything(world):
    reader = os.open(world / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_file(world / "pipe", b"new", MARK)
    assert os.read(reader, 10) == b"new"
    os.close(reader)


def test_a_file_of_ours_is_replaced_and_a_link_to_it_stays(world):
    (world / "link").symlink_to("page")
    for content in (b"a mark 1", b"a mark 2"):
        write_file(world / "link", content, MARK)
        assert (world / "page").read_bytes() == content
    assert (world / "link").is_symlink()
    assert [path.name for path in world.iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_leaves_the_file_that_was_there(world, monkeypatch):
    write_file(world / "page", b"a mark", MARK)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    before = everything(world)
    with pytest.raises(OutputError, match="No space left"):
        write_file(world / "page", b"a mark 2", MARK)
    assert everything(world) == before


def test_folders_made_for_a_build_that_fails_go_with_it(world):
    with pytest.raises(ZeroDivisionError), staged(world / "deep" / "er" / "tree"):
        raise ZeroDivisionError
    assert not (world / "deep").exists()


def test_what_comes_into_an_empty_directory_while_its_tree_is_built_stays(world):
    with pytest.raises(OutputError, match="cannot be written"), staged(world / "empty"):
        (world / "empty" / "thesis.tex").write_text("years")
    assert (world / "empty" / "thesis.tex").read_text() == "years"


@pytest.mark.parametrize("manifest", ['{"name": "another ditto"}', "[]"])
def test_a_file_of_the_manifests_name_makes_no_tree(manifest, world):
    (world / "other").mkdir()
    (world / "other" / "ditto.json").write_text(manifest)
    with pytest.raises(OutputError, match="is not an engine tree"), staged(world / "other"):
        pass
    assert (world / "other" / "ditto.json").read_text() == manifest


@pytest.mark.parametrize("options", [["-o", "."], ["-o", "{model}/new"], ["-o", "new", "--dump", "new/dump"]])
def test_the_command_refuses_them_before_any_work(options, shapes_checkpoint, world, capsys):
    before = everything(world)
    options = [option.format(model=shapes_checkpoint) for option in options]
    assert main(["-q", "build", str(shapes_checkpoint), "--target", "trtllm", *options]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: the output directory ")
    assert everything(world) == before
    assert not (shapes_checkpoint / "new").exists()


@pytest.mark.parametrize("name", ["ditto.json", "llm/config.json", "llm/network.json", "llm/new.html"])
def test_no_page_is_written_among_the_files_of_a_tree(llava_tree, name, capsys):
    before = everything(llava_tree.root)
    assert main(["-q", "inspect", str(llava_tree.root), "--html", str(llava_tree.root / name)]) == 2
    assert "among the files of an engine tree" in capsys.readouterr().err
    assert everything(llava_tree.root) == before


def test_a_page_is_written_again(llava_tree, tmp_path):
    for _ in range(2):
        assert main(["-q", "inspect", str(llava_tree.root), "--html", str(tmp_path / "page.html")]) == 0
    check_file(tmp_path / "page.html", "ditto inspect")


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_figures_replace_nobodys_file(llava_tree, tmp_path, option, capsys):
    (tmp_path / "file").write_text("years")
    assert main(["-q", "bench", str(llava_tree.root), option, str(tmp_path / "file")]) == 2
    assert "this command did not write it" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "years"
