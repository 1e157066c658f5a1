"""`ditto serve`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ditto.bindings import install_command, is_installed
from ditto.cli.generation import add_session_options
from ditto.cli.startup import start_driver
from ditto.errors import ConfigError, MissingLibraryError

_PACKAGES = ("starlette", "uvicorn", "prometheus_client")
_KEYS = "DITTO_API_KEY"
_MEGABYTE = 1 << 20
# Connections beside those of requests that run or wait: health checks, metrics, requests that are refused.
_MORE_CONNECTIONS = 256


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    text = "Serve a tree with OpenAI's HTTP interface: /v1/chat/completions, /v1/completions, /v1/models."
    parser = commands.add_parser("serve", help="serve a tree with OpenAI's HTTP interface", description=text)
    parser.add_argument("tree", metavar="OUT", type=Path, help="an engine tree")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0: any (default 8000)")
    parser.add_argument("--name", metavar="NAME", help="the model's name for clients (default: the tree's directory)")
    parser.add_argument(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY",
        help=f"ask clients for one of these keys (default: those in {_KEYS}, separated by commas)",
    )
    parser.add_argument(
        "--rows", type=int, metavar="N", help="answers in progress at once (default: the engine's batch)"
    )
    parser.add_argument(
        "--max-waiting", type=int, default=256, metavar="N", help="requests that may wait for a row (default 256)"
    )
    parser.add_argument(
        "--timeout", type=float, default=600.0, metavar="SECONDS", help="for a complete answer (default 600)"
    )
    parser.add_argument(
        "--max-request-mb", type=int, default=64, metavar="N", help="size of a request, images included (default 64)"
    )
    parser.add_argument(
        "--max-image-pixels",
        type=int,
        default=1 << 26,
        metavar="N",
        help="of all images of a request, before they are decoded (default 2^26)",
    )
    parser.add_argument(
        "--image-cache-mb",
        type=int,
        default=256,
        metavar="N",
        help="memory for embeddings of images that may come again; 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--allowed-media-domains",
        nargs="+",
        action="extend",
        default=[],
        metavar="HOST",
        help="hosts that image URLs may name (default: none)",
    )
    parser.add_argument(
        "--allowed-media-path", type=Path, metavar="DIR", help="directory that file: URLs may name (default: none)"
    )
    add_session_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    missing = [package for package in _PACKAGES if not is_installed(package)]
    if missing:
        raise MissingLibraryError(f"{missing[0]} is not installed", remedy=install_command("serve"))
    for name in ("max_waiting", "timeout", "max_request_mb", "max_image_pixels"):
        if not getattr(options, name) > 0:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(options, name)}", remedy="give more than 0")
    if options.image_cache_mb < 0:
        raise ConfigError(f"--image-cache-mb is {options.image_cache_mb}", remedy="give 0 for no cache, or more")
    keys = _keys(options.api_key)
    if options.session != "reference":
        start_driver()
    from ditto.serve.app import Server, ServerSettings
    from ditto.serve.media import MediaPolicy
    from ditto.serve.server import Process, answering_early, listen
    from ditto.text.model import load

    opened = listen(options.host, options.port)
    with answering_early(opened):
        model = load(
            options.tree,
            session=options.session,
            processor=options.hf_model,
            generation_defaults=not options.no_generation_defaults,
            rows=options.rows,
            max_waiting=options.max_waiting,
            image_cache_bytes=options.image_cache_mb * _MEGABYTE,
        )
    settings = ServerSettings(
        name=options.name or options.tree.resolve().name,
        keys=keys,
        media=MediaPolicy(
            tuple(options.allowed_media_domains),
            options.allowed_media_path,
            max_bytes=options.max_request_mb * _MEGABYTE,
            max_pixels=options.max_image_pixels,
        ),
        max_body_bytes=options.max_request_mb * _MEGABYTE,
        timeout=options.timeout,
    )
    connections = model.scheduler.rows + options.max_waiting + _MORE_CONNECTIONS
    Process(Server(model, settings), model, connections).serve_on(opened)
    return 0


def _keys(given: list[str]) -> tuple[str, ...]:
    """Keys of the options, else of the environment; a server is open only if neither names any."""
    if not given and _KEYS not in os.environ:
        return ()
    name = "--api-key" if given else _KEYS
    keys = tuple(key.strip() for key in given or os.environ[_KEYS].split(","))
    if not all(key and key.isascii() for key in keys):
        raise ConfigError(f"{name} has an empty key, or one that is not ASCII", remedy="give another, or none at all")
    return keys
