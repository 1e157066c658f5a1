"""Images come from data URLs and allowed places only; sizes are limited before they are decoded."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from PIL import Image

from ditto.errors import PromptError
from ditto.serve.media import MediaPolicy
from tests.support.serving import data_url


@pytest.fixture
def web(images):
    """A web server with an image, a redirect to another host, and an endless file."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/away":
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{self.server.server_port}/image.png")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            content = images[3].read_bytes()
            for _ in range(1 if self.path == "/image.png" else 1000):
                self.wfile.write(content if self.path == "/image.png" else b"x" * 1000)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_image_of_an_allowed_host_is_fetched(web, images):
    found = MediaPolicy(("127.0.0.1",)).load([f"{web}/image.png", data_url(images[3])])
    with Image.open(images[3]) as image:
        assert all(one.tobytes() == image.convert("RGB").tobytes() for one in found)


@pytest.mark.parametrize(
    ("path", "domains", "message"),
    [
        ("/image.png", (), "images of the host '127.0.0.1' are not allowed"),
        ("/image.png", ("7.0.0.1", "localhost"), "are not allowed"),
        ("/away", ("127.0.0.1",), "images of the host 'localhost' are not allowed"),
        ("/endless", ("127.0.0.1",), "has more than 100000 bytes"),
    ],
)
def test_what_is_not_allowed_is_not_fetched(path, domains, message, web):
    with pytest.raises(PromptError, match=message):
        MediaPolicy(domains, max_bytes=100_000).load([web + path])


@pytest.mark.parametrize("url", ["http://a.com@b.com/x", "https://a.com.b.com/", "HTTP://b.com", "http://[::1]/"])
def test_an_allowed_host_is_that_host_exactly(url):
    with pytest.raises(PromptError, match="are not allowed"):
        MediaPolicy(("a.com",)).load([url])


@pytest.mark.parametrize("url", ["http://[", "ftp://a.com/x", "image.png", "", "javascript:1"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(PromptError, match="an image URL is"):
        MediaPolicy(("a.com",)).load([url])


def test_files_lie_below_the_allowed_directory(images, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a.png").write_bytes(images[0].read_bytes())
    (tmp_path / "out.png").write_bytes(images[0].read_bytes())
    (inside / "link.png").symlink_to(tmp_path / "out.png")
    policy = MediaPolicy(directory=inside)
    assert len(policy.load([(inside / "a.png").as_uri()])) == 1
    for wrong in (
        (tmp_path / "out.png").as_uri(),
        inside.as_uri() + "/../out.png",
        inside.as_uri() + "/%2e%2e/out.png",
        (inside / "link.png").as_uri(),
        f"file://other{inside}/a.png",
        "file:///a%00b",
    ):
        with pytest.raises(PromptError, match="this file is not allowed"):
            policy.load([wrong])
    with pytest.raises(PromptError, match="this file is not allowed"):
        MediaPolicy().load([(inside / "a.png").as_uri()])


def test_sizes_are_limited(images, tmp_path):
    Image.new("RGB", (300, 200)).save(tmp_path / "a.png")
    url = data_url(tmp_path / "a.png")
    assert len(MediaPolicy(max_pixels=120_000).load([url, url])) == 2
    with pytest.raises(PromptError, match="300 x 200 pixels is larger than allowed here: 59999 pixels are left"):
        MediaPolicy(max_pixels=119_999).load([url, url])
    with pytest.raises(PromptError, match="has more than 100 bytes"):
        MediaPolicy(max_bytes=100).load([url])
    with pytest.raises(PromptError, match="has more than 100 bytes"):
        MediaPolicy(max_bytes=100, directory=tmp_path).load([(tmp_path / "a.png").as_uri()])
