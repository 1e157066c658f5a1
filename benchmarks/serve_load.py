"""Many clients of `ditto serve` at once: each answer beside Hugging Face's, memory, the queue, the log.

    nice python -m benchmarks.serve_load --work DIRECTORY [--seconds 180] [--clients 32]

Builds the bundled LLaVA for a batch of 4 and serves it in a process of its own. Clients ask about images and without
them, half of them in streams, some with penalties or log-probabilities; 5 % leave in the middle of an answer, 1 % send
what is no request. Exits with 1 if an answer differs from Hugging Face's, something hostile is answered with anything
but 4xx, more requests wait than may, the log has a traceback, or the server does not end with 0.
"""

from __future__ import annotations

import argparse
import base64
import collections
import http.client
import io
import itertools
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import define, field, frozen
from PIL import Image

from benchmarks.memory import resident_bytes
from ditto import LlavaModel

_SHAPES = Path(__file__).parent.parent / "examples" / "shapes_llava"
_QUESTIONS = ("Describe this image.", "How many shapes are there?", "What color is the largest shape?")
_LONG = {"min_tokens": 30, "max_tokens": 34}
_ROWS, _MOST_WAITING = 4, 20
_LEAVE, _HOSTILE = 0.05, 0.01


@frozen
class Case:
    """A request and Hugging Face's answer to it.

    Args:
        body: of a chat.
        wanted: the text of the answer.
    """

    body: dict[str, Any]
    wanted: str


@define
class Counts:
    """What became of the requests.

    Args:
        faults: what must not happen, in words.
        seconds: from each accepted request to its whole answer.
    """

    faults: list[str] = field(factory=list)
    outcomes: collections.Counter[str] = field(factory=collections.Counter)
    seconds: list[float] = field(factory=list)
    lock: Any = field(factory=threading.Lock)

    def add(self, outcome: str, fault: str | None = None, seconds: float | None = None) -> None:
        with self.lock:
            self.outcomes[outcome] += 1
            if fault is not None:
                self.faults.append(fault)
            if seconds is not None:
                self.seconds.append(seconds)


@define
class Watch:
    """The server's memory in bytes and the number of waiting requests, with the seconds at which each was seen."""

    memory: list[tuple[float, int]] = field(factory=list)
    waiting: list[int] = field(factory=list)

    def mean(self, first: float, last: float) -> float:
        """Mean memory between two times, in MB."""
        seen = [size for at, size in self.memory if first <= at <= last]
        return sum(seen) / max(1, len(seen)) / 1e6


def cases(checkpoint: Path, pictures: Sequence[Path]) -> list[Case]:
    """Requests with and without images, and what Hugging Face answers."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model: Any = LlavaForConditionalGeneration.from_pretrained(checkpoint, torch_dtype=torch.float32).eval()
    processor: Any = AutoProcessor.from_pretrained(checkpoint)
    asked: list[tuple[Path | None, str, dict[str, Any]]] = [
        (picture, question, {}) for picture in pictures for question in _QUESTIONS
    ]
    asked += [(picture, _QUESTIONS[0], {"repetition_penalty": 1.8, **_LONG}) for picture in pictures]
    asked += [(picture, _QUESTIONS[1], {"logprobs": True, "top_logprobs": 3}) for picture in pictures]
    asked += [(None, question, {"max_tokens": 12}) for question in ("Hello", "Name a color.")]
    return [
        Case(_body(picture, question, settings), _answer(model, processor, picture, question, settings))
        for picture, question, settings in asked
    ]


def _body(picture: Path | None, question: str, settings: dict[str, Any]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": question}]
    if picture is not None:
        url = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
        parts = [{"type": "image_url", "image_url": {"url": url}}, *parts]
    return {"model": "shapes", "messages": [{"role": "user", "content": parts}], "temperature": 0, **settings}


def _answer(model: Any, processor: Any, picture: Path | None, question: str, settings: dict[str, Any]) -> str:
    content = [*([{"type": "image"}] if picture else []), {"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    images = {"images": [Image.open(picture).convert("RGB")]} if picture else {}
    given = processor(text=[text], return_tensors="pt", **images)
    more = {"max_new_tokens": settings.get("max_tokens", 64)}
    more |= {"min_new_tokens": settings["min_tokens"]} if "min_tokens" in settings else {}
    more |= {"repetition_penalty": settings["repetition_penalty"]} if "repetition_penalty" in settings else {}
    with torch.no_grad():
        made = model.generate(**given, do_sample=False, **more)[0, given["input_ids"].shape[1] :]
    return str(processor.tokenizer.decode(made, skip_special_tokens=True)).strip()


def hostile() -> list[bytes]:
    """Bodies that must be refused."""
    bomb = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(bomb, "PNG")
    chat = {"model": "shapes", "messages": [{"role": "user", "content": "Hello"}]}
    images = (
        "data:image/png;base64," + base64.b64encode(bomb.getvalue()).decode(),
        "data:image/png;base64,AAAA",
        "file:///etc/passwd",
        "http://169.254.169.254/latest",
    )
    parts = [[{"type": "image_url", "image_url": {"url": url}}] for url in images]
    bodies: list[Any] = [{**chat, "messages": [{"role": "user", "content": part}]} for part in parts]
    bodies += [{**chat, "logit_bias": {"5": 1e9}}, {**chat, "best": 1}, {**chat, "max_tokens": 10**9}, [], None]
    bodies += [{**chat, "messages": [{"role": "user", "content": "long " * 2000}]}]
    return [b"{", b"[" * 100_000, b"\xff\xfe", *(json.dumps(body).encode() for body in bodies)]


def ask(address: tuple[str, int], body: bytes) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Send a chat; the connection is to be closed."""
    connection = http.client.HTTPConnection(*address, timeout=120)
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    return connection, connection.getresponse()


def pieces(response: http.client.HTTPResponse) -> Iterator[str]:
    """Texts of a stream."""
    for line in response:
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            if "error" in event:
                raise ValueError(event["error"]["message"])
            yield event["choices"][0]["delta"].get("content") or ""


def client(
    address: tuple[str, int], given: Sequence[Case], bad: Sequence[bytes], end: float, seed: int, to: Counts
) -> None:
    """One client, until `end`."""
    rng = random.Random(seed)
    while time.monotonic() < end:
        kind, start = rng.random(), time.monotonic()
        try:
            if kind < _HOSTILE:
                body = rng.choice(bad)
                connection, response = ask(address, body)
                response.read()
                connection.close()
                refused = 400 <= response.status < 500
                to.add("hostile", None if refused else f"{response.status} for {body[:60]!r}")
                continue
            case = rng.choice(given)
            leaves, streams = kind < _HOSTILE + _LEAVE, rng.random() < 0.5
            connection, response = ask(address, json.dumps({**case.body, "stream": streams or leaves}).encode())
            try:
                if response.status == 429:
                    response.read()
                    to.add("429")
                    time.sleep(rng.uniform(0.05, 0.5))
                elif response.status != 200:
                    to.add("failed", f"{response.status}: {response.read()[:200]!r}")
                elif leaves:
                    list(itertools.islice(pieces(response), 3))
                    to.add("left")
                else:
                    text = "".join(pieces(response)) if streams else _whole(response)
                    fault = None if text == case.wanted else f"{text!r} instead of {case.wanted!r}"
                    to.add("answered", fault, time.monotonic() - start)
            finally:
                response.close()
                connection.close()
        except (OSError, ValueError, http.client.HTTPException) as error:
            to.add("failed", repr(error))


def _whole(response: http.client.HTTPResponse) -> str:
    return str(json.loads(response.read())["choices"][0]["message"]["content"])


def load(tree: Path, given: Sequence[Case], seconds: float, clients: int, log: Path) -> tuple[Counts, Watch]:
    """Serve a tree to clients for a time."""
    command = [sys.executable, "-m", "ditto", "serve", str(tree), "--name", "shapes", "--port", "0"]
    command += ["--session", "reference", "--rows", str(_ROWS), "--max-waiting", str(_MOST_WAITING)]
    command += ["--max-image-pixels", "1000000"]
    counts, watch, bad = Counts(), Watch(), hostile()
    with log.open("w") as output, subprocess.Popen(command, stderr=output) as server:
        try:
            address = _listening(server, log)
            start = time.monotonic()
            end = start + seconds
            threads = [
                threading.Thread(target=client, args=(address, given, bad, end, seed, counts))
                for seed in range(clients)
            ]
            for thread in threads:
                thread.start()
            while time.monotonic() < end:
                watch.memory.append((time.monotonic() - start, resident_bytes(server.pid)))
                watch.waiting.append(_waiting(address))
                time.sleep(1)
            for thread in threads:
                thread.join()
            server.send_signal(signal.SIGTERM)
            code = server.wait(120)
        finally:
            server.kill()
    if code:
        counts.faults.append(f"the server ended with {code}")
    if "Traceback" in log.read_text():
        counts.faults.append(f"the log has a traceback: {log}")
    if max(watch.waiting) > _MOST_WAITING:
        counts.faults.append(f"{max(watch.waiting)} requests waited")
    return counts, watch


def _listening(server: subprocess.Popen[bytes], log: Path) -> tuple[str, int]:
    """Where the server listens, once it is ready."""
    while server.poll() is None:
        found = re.search(r"ready: .*?http://([\d.]+):(\d+)", log.read_text())
        if found:
            return found[1], int(found[2])
        time.sleep(0.1)
    raise RuntimeError(log.read_text())


def _waiting(address: tuple[str, int]) -> int:
    connection = http.client.HTTPConnection(*address, timeout=120)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.search(r"^ditto:num_requests_waiting\{.*\} (\S+)$", text, re.MULTILINE)
    if found is None:
        raise LookupError("num_requests_waiting")
    return int(float(found[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--clients", type=int, default=32)
    options = parser.parse_args()
    checkpoint, tree = _SHAPES / "checkpoint", options.work / "tree"
    options.work.mkdir(parents=True, exist_ok=True)
    if not tree.exists():
        LlavaModel.from_pretrained(str(checkpoint)).with_batch(_ROWS).with_target("tensorrt-rtx").build_all(tree)
    given = cases(checkpoint, sorted((_SHAPES / "pictures").glob("*.png")))
    counts, watch = load(tree, given, options.seconds, options.clients, options.work / "log.txt")
    took = sorted(counts.seconds)
    print(f"{dict(counts.outcomes)}   {len(took) / options.seconds:.1f} answers/s", end="   ")
    print(f"median {took[len(took) // 2]:.2f} s   99 % {took[len(took) * 99 // 100]:.2f} s")
    minute = min(60.0, options.seconds / 2)
    first, last = watch.mean(0, minute), watch.mean(options.seconds - minute, options.seconds)
    print(f"memory, first minute {first:.0f} MB, last {last:.0f} MB   waiting, at most {max(watch.waiting)}")
    for fault in counts.faults[:20]:
        print("FAULT", fault)
    sys.exit(bool(counts.faults))


if __name__ == "__main__":
    main()
