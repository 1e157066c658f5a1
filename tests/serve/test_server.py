"""A process of its own: it says where it listens, drains at SIGTERM, and takes its keys from the environment."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import openai as library
import pytest

from ditto.cli.main import main
from ditto.cli.serve import _keys
from ditto.errors import ConfigError
from ditto.serve.app import Server, ServerSettings
from ditto.serve.server import Process, answering_early, listen
from ditto.text.model import load
from tests.support.serving import ask, client


def test_sigterm_drains_and_ends_with_0(shapes_tree, images):
    command = [sys.executable, "-m", "ditto", "serve", str(shapes_tree.root), "--port", "0", "--name", "shapes"]
    environment = {**os.environ, "DITTO_API_KEY": "one,two"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "ready: " in line:
                break
        address = re.search(r"http://\S+(?=/v1)", lines[-1])[0]
        rest = threading.Thread(target=lambda: lines.extend(process.stderr))
        rest.start()
        with pytest.raises(library.AuthenticationError):
            client(address, "three").models.list()
        openai = client(address, "two")
        messages = ask("Describe this image.", images[3])
        stream = openai.chat.completions.create(model="shapes", messages=messages, stream=True)
        first = next(stream)
        process.send_signal(signal.SIGTERM)
        text = "".join(piece.choices[0].delta.content or "" for piece in (first, *stream))
        assert text == "A large green cross at the top."
        assert process.wait(60) == 0
        rest.join()
    assert "ended: all requests are finished" in "".join(lines)
    assert "Traceback" not in "".join(lines)


def test_a_server_that_loads_is_alive_but_not_ready(shapes_tree):
    opened = listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{opened.getsockname()[1]}"

    def status(path, data=None):
        try:
            with urllib.request.urlopen(address + path, data, timeout=10) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    with answering_early(opened):
        silent = socket.create_connection(opened.getsockname())  # holds nobody up
        assert status("/health") == (200, {"status": "ok"})
        assert status("/health/ready") == (503, {"status": "not ready"})
        code, body = status("/v1/chat/completions", b"{}")
        assert (code, body["error"]["code"]) == (503, "loading")
        model = load(shapes_tree)
    silent.close()
    process = Process(Server(model, ServerSettings("shapes")), model, 10)
    thread = threading.Thread(target=process.serve_on, args=(opened,))
    thread.start()
    try:
        assert status("/health/ready") == (200, {"status": "ready"})
    finally:
        process.stop()
        thread.join(60)


def test_an_address_in_use_is_one_clear_error(shapes_tree, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["-q", "serve", str(shapes_tree.root), "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="cannot listen on nowhere.invalid port 1"):
        listen("nowhere.invalid", 1)
    with pytest.raises(ConfigError, match="port 70000"):
        listen("127.0.0.1", 70000)


@pytest.mark.parametrize("option", ["--max-waiting", "--timeout", "--max-request-mb", "--max-image-pixels"])
def test_limits_are_above_0(option, shapes_tree, capsys):
    assert main(["-q", "serve", str(shapes_tree.root), "--port", "0", option, "0"]) == 2
    assert f"{option} is 0" in capsys.readouterr().err


def test_a_missing_package_is_named(shapes_tree, capsys, monkeypatch):
    monkeypatch.setattr("ditto.cli.serve.is_installed", lambda name: name != "uvicorn")
    assert main(["-q", "serve", str(shapes_tree.root)]) == 2
    assert "uvicorn is not installed\n hint: pip install 'ditto-trt[serve]'" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "variable"), [([""], None), ([" "], None), (["clé"], None), ([], ""), ([], "a,,b")])
def test_keys_that_no_client_can_give_are_refused(given, variable, monkeypatch):
    if variable is not None:
        monkeypatch.setenv("DITTO_API_KEY", variable)
    with pytest.raises(ConfigError, match="empty key"):
        _keys(given)


def test_keys_of_the_environment_are_stripped(monkeypatch):
    monkeypatch.setenv("DITTO_API_KEY", "one, two\n")
    assert _keys([]) == ("one", "two")
    monkeypatch.delenv("DITTO_API_KEY")
    assert _keys([]) == ()
