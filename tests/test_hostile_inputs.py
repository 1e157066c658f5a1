"""Whatever a user hands over: one message, the right exit code, no traceback, and nothing that waits for ever.

Configurations, weights and manifests have suites of their own; here are images, prompts, processors, streams and the
environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from ditto import LlmBuilder
from ditto.api import build_llm_engine
from ditto.cache import cache_directory
from ditto.cli.main import main
from ditto.cli.startup import keep_bytecode
from ditto.errors import ConfigError
from tests.support.hostile import FILES, PROCESSORS, special
from tests.support.models import llama

DESCRIBE = "USER: <image>\nDescribe this image. ASSISTANT:"


@pytest.fixture(scope="module")
def tree(packed_shapes_tree):
    return packed_shapes_tree.root


@pytest.fixture(scope="module")
def files(tree):
    """What the tree consists of, by which its being unchanged is told."""
    return {path: path.stat().st_mtime_ns for path in tree.rglob("*")}


def refused(capsys, arguments: list[str], message: str, code: int = 2) -> None:
    """Run a command that is refused with one message."""
    capsys.readouterr()
    assert main(["-q", *arguments]) == code
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert message in lines[0], shown.err
    assert [line[:6] for line in lines] == ["error:", "   at:", " hint:"][: len(lines)] or (
        [line[:6] for line in lines] == ["error:", " hint:"]
    ), shown.err
    assert shown.out == ""


@pytest.mark.parametrize("command", ["run", "verify"])
@pytest.mark.parametrize("name", FILES)
def test_files_that_are_not_images(name, command, tree, files, tmp_path, capsys):
    made, message = FILES[name]
    (tmp_path / "image").write_bytes(made())
    arguments = [command, str(tree), "--image", str(tmp_path / "image"), "--prompt", DESCRIBE, "--session", "reference"]
    refused(capsys, arguments, message)
    assert files == {path: path.stat().st_mtime_ns for path in tree.rglob("*")}


@pytest.mark.parametrize("command", ["run", "verify"])
def test_what_is_not_a_file_and_what_never_ends(command, tree, tmp_path, capsys):
    for path, message in special(tmp_path).values():
        arguments = [command, str(tree), "--image", path, "--prompt", DESCRIBE, "--session", "reference"]
        refused(capsys, arguments, message)


PROMPTS = {
    "bytes that are not UTF-8": (os.fsdecode(b"<image> caf\xe9"), "prompt 1 is not valid Unicode at character 12"),
    "half of a pair": ("\ud83d<image>", "prompt 1 is not valid Unicode at character 1"),
    "nothing": ("", "prompt 1 has no <image> token"),
    "blanks": (" \n\t", "prompt 1 has no <image> token"),
    "too many places": ("<image>" * 9, "places for images in the prompts: 9; images given: 1"),
    "too long": (DESCRIBE + " word" * 5000, "tokens, the engine accepts"),
}


@pytest.mark.parametrize("command", ["run", "verify"])
@pytest.mark.parametrize("name", PROMPTS)
def test_prompts(name, command, tree, images, capsys):
    prompt, message = PROMPTS[name]
    arguments = [command, str(tree), "--image", str(images[0]), "--prompt", prompt, "--session", "reference"]
    if command == "run":
        arguments.append("--raw")  # a chat template would write the place for the image
    refused(capsys, arguments, message)


@pytest.mark.parametrize("prompt", ["", "<image>", "\0<image>\0", "<image>" + "\u202e\U0001f600e\u0301\ufffd" * 3])
def test_odd_prompts_that_are_text_are_answered(prompt, tree, images, capsys):
    """The empty one too: its beginning is a token."""
    images = ["--image", str(images[0])] if prompt else []
    arguments = [*images, "--prompt", prompt, "--session", "reference", "--max-new-tokens", "2"]
    assert main(["-q", "run", str(tree), *arguments]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", PROCESSORS)
def test_processors(name, tree, shapes_checkpoint, tmp_path, images, capsys):
    spoil, message = PROCESSORS[name]
    directory = tmp_path / "processor"
    directory.mkdir()
    for path in shapes_checkpoint.iterdir():
        if path.suffix == ".json":
            shutil.copy(path, directory)
    spoil(directory)
    arguments = ["--image", str(images[0]), "--prompt", DESCRIBE, "--session", "reference", "--max-new-tokens", "1"]
    refused(capsys, ["run", str(tree), "--hf-model", str(directory), *arguments], message)


def test_a_text_model_to_verify_against(tree, tmp_path, images, capsys):
    for size, message in ((512, "accepts no images that Ditto knows"), (500, "its vocabulary has 500 tokens")):
        llama(vocab_size=size).save_pretrained(tmp_path / str(size))
        arguments = ["verify", str(tree), "--against", str(tmp_path / str(size)), "--session", "reference"]
        refused(capsys, arguments, message)


def test_a_text_model_whose_tokenizer_has_tokens_more(shapes_checkpoint, tmp_path, capsys):
    """Hugging Face: an index outside of the embedding. Here such ids would be rows of the image table."""
    tree = LlmBuilder.from_model(llama(vocab_size=100)).with_target("trtllm").build(tmp_path / "tree").root
    shutil.copytree(shapes_checkpoint, tmp_path / "hf", ignore=shutil.ignore_patterns("*.safetensors"))
    arguments = ["run", str(tree), "--hf-model", str(tmp_path / "hf"), "--prompt", "Hello", "--session", "reference"]
    refused(capsys, arguments, "the tokenizer is not of the model that the tree was built from")


class TestStreams:
    """What is printed arrives, or that it does not is said."""

    def test_a_full_disk(self, tree, capsys, monkeypatch):
        with open("/dev/full", "w") as full:
            monkeypatch.setattr(sys, "stdout", full)
            assert main(["-q", "inspect", str(tree)]) == 2
        assert capsys.readouterr().err.startswith("error: stdout cannot be written: No space left on device\n")

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-16"])
    def test_an_encoding_without_the_answers_characters(self, encoding, tree, tmp_path, monkeypatch):
        place = tmp_path / "bäume \U0001f332"
        place.symlink_to(tree)
        for arguments in (["inspect", str(place)], ["inspect", str(place), "--json"]):
            with (tmp_path / "out").open("w", encoding=encoding) as out:
                monkeypatch.setattr(sys, "stdout", out)
                assert main(["-q", *arguments]) == 0
            told = (tmp_path / "out").read_text(encoding=encoding)
            assert "llm" in told
            if "--json" in arguments:
                assert json.loads(told)["root"] == str(place)

    @pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
    def test_the_program_says_so_once(self, redirection):
        done = _shell(f"--help {redirection}")
        assert done.returncode == 2
        assert done.stderr.startswith("error: stdout ")
        assert len(done.stderr.splitlines()) == 2

    @pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2>&- <&-"])
    def test_messages_that_cannot_be_written_end_nothing(self, redirection):
        assert "usage: ditto" in _shell(f"--help {redirection}").stdout
        failed = _shell(f"run {redirection}")
        assert (failed.returncode, failed.stdout) == (2, "")

    def test_an_error_that_cannot_be_written_keeps_its_exit_code(self, monkeypatch, tmp_path):
        with open("/dev/full", "w", buffering=1) as full:  # as stderr is
            monkeypatch.setattr(sys, "stderr", full)
            assert main(["inspect", str(tmp_path / "none")]) == 2


def _shell(rest: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, with what it needs no torch for."""
    settings = " ".join(f"{name}={value}" for name, value in environment.items())
    command = ["bash", "-c", f"env {settings} {sys.executable} -m ditto {rest}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "xx_YY.UTF-99", "LANG": "xx"},
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        {"COLUMNS": "many", "LINES": "-1", "TERM": "nothing"},
        {"HOME": "/nowhere", "DITTO_CACHE": "/dev/null/cache"},
    ],
)
def test_odd_environments_change_nothing(environment):
    done = _shell("run --help", **environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    """As in a container whose user has a number only."""
    for name in ("HOME", "DITTO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    keep_bytecode()
    assert cache_directory() is None


@pytest.mark.parametrize("value", ["none", "onnx", "\n"])
def test_a_default_target_that_there_is_not(value, tmp_path, monkeypatch):
    monkeypatch.setenv("DITTO_TARGET", value)
    with pytest.raises(ConfigError):
        build_llm_engine(llama(), tmp_path / "tree")
    assert not list(tmp_path.iterdir())
