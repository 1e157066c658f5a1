"""The process of a server: a socket, signals, and the end."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import uvicorn
from loguru import logger
from typing_extensions import override

from ditto.errors import ConfigError
from ditto.serve.app import Server
from ditto.serve.protocol import RequestError
from ditto.text.model import Model

_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048
_EARLY_SECONDS = 5


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections.

    Args:
        port: 0 for any that is free.
    Raises:
        ConfigError: the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"the server cannot listen on {host} port {port}: {reason}", remedy="choose another --host or --port"
        ) from error


@contextmanager
def answering_early(opened: socket.socket) -> Generator[None]:
    """Answer on a socket while the model is loaded: alive, but not ready.

    Args:
        opened: as `listen` returns it; it stays open.
    """
    server = ThreadingHTTPServer(("", 0), _Early, bind_and_activate=False)
    server.socket.close()
    server.socket, server.daemon_threads = opened, True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="ditto-early", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


class _Early(BaseHTTPRequestHandler):
    timeout = _EARLY_SECONDS  # of a client that sends nothing

    def _answer(self) -> None:
        alive = self.command == "GET" and self.path == "/health"
        error = RequestError(503, "The model is still loaded.", code="loading")
        states = {"/health": {"status": "ok"}, "/health/ready": {"status": "not ready"}}
        content = json.dumps(states.get(self.path, error.body)).encode()
        self.send_response(200 if alive else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _answer  # noqa: N815 (names of http.server)

    @override
    def version_string(self) -> str:
        return "ditto"

    @override
    def log_message(self, format: str, *args: Any) -> None:
        logger.debug("while loading: " + format.replace("%s", "{}"), *args)


class Process(uvicorn.Server):
    """A process that serves until SIGTERM or SIGINT.

    It then takes no more requests and finishes those that were taken; a second signal gives them up.

    Args:
        connections: maximum number at once; more are answered with 503.
    """

    def __init__(self, server: Server, model: Model, connections: int) -> None:
        config = uvicorn.Config(
            server.application(),
            access_log=False,
            log_config=None,
            lifespan="off",
            ws="none",
            server_header=False,
            limit_concurrency=connections,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=server.longest_answer,
        )
        super().__init__(config)
        self._server, self._model = server, model

    def serve_on(self, opened: socket.socket) -> None:
        """Serve, and close the model at the end.

        Args:
            opened: as `listen` returns it.
        """
        host, port = opened.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        logger.info("ready: http://{}:{}/v1", shown, port)
        self.run(sockets=[opened])
        self._server.close()
        self._model.close()
        logger.info("ended: all requests are finished")

    def stop(self) -> None:
        """What a signal does."""
        self._server.draining = True
        if self.should_exit:
            self._model.scheduler.cancel_all()
            self.force_exit = True
        self.should_exit = True

    @override
    def handle_exit(self, sig: int, frame: Any) -> None:  # uvicorn's own raises the signal again at the end
        self.stop()
