"""`ditto chat`: a message per line, answers as they come; Ctrl-C stops an answer and not the program."""

from __future__ import annotations

import io
import os
import signal
import sys

import pytest

from ditto.cli.main import main
from ditto.text.model import Model


@pytest.fixture
def say(monkeypatch):
    def say(*lines):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))

    return say


def test_a_conversation_is_the_one_of_python(shapes_tree, images, say, capsys):
    say("Describe this image.", "How many shapes are there?", "", "/new", f"/image {images[3]}", "Describe this image.")
    assert main(["-q", "chat", str(shapes_tree.root), "--image", str(images[0])]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    picture = {"type": "image", "image": images[0]}
    talk = [{"role": "user", "content": [picture, {"type": "text", "text": "Describe this image."}]}]
    with shapes_tree.load() as model:
        assert first == model.chat(talk).text
        talk += [{"role": "assistant", "content": first}, {"role": "user", "content": "How many shapes are there?"}]
        assert second == model.chat(talk).text
    assert third == "A large green cross at the top."


def test_an_error_is_said_and_the_conversation_goes_on(shapes_tree, images, say, capsys):
    say("/image nothing.png", "What is this?", f"/image {images[3]}", "Describe this image.")
    assert main(["-q", "chat", str(shapes_tree.root)]) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("error: there is no such image\n   at: nothing.png\n hint: ")
    assert shown.out.splitlines() == ["A large green cross at the top."]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_ctrl_c_stops_an_answer_and_not_the_program(number, code, shapes_tree, images, say, capsys, monkeypatch):
    stream, first = Model.stream, iter([True])

    def interrupted(self, messages, **settings):
        pieces = stream(self, messages, **settings)

        def told():
            try:
                for count, piece in enumerate(pieces):
                    yield piece
                    if count == 1 and next(first, False):
                        os.kill(os.getpid(), number)
            finally:
                pieces.close()

        return told()

    monkeypatch.setattr(Model, "stream", interrupted)
    say("Describe this image.", f"/image {images[3]}", "Describe this image.")
    assert main(["-q", "chat", str(shapes_tree.root), "--image", str(images[0])]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "A small"
    if not code:
        assert len(lines) == 2


def test_a_wrong_setting_is_said_before_the_first_message(shapes_tree, say, capsys):
    say("Hello")
    assert main(["-q", "chat", str(shapes_tree.root), "--top-p", "0"]) == 2
    assert "top-p 0.0 is out of range" in capsys.readouterr().err
