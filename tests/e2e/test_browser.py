"""A real browser with a web page that tries to reach a worker on the same machine."""

import contextlib
import http.server
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.network import Server, serving

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DEADLINE = 60.0
"""Seconds until a page must have said what came of it; most of them are the browser's start."""
PAGE = b"""<!doctype html>
<script>
const socket = new WebSocket("ws://" + location.hash.slice(1));
const tell = text => fetch("/result", {method: "POST", body: text});
socket.onopen = () => tell("open");
socket.onerror = () => tell("refused");
</script>
"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium")


@pytest.fixture
def site() -> Iterator[tuple[int, "queue.Queue[str]"]]:
    """A web site on this machine with PAGE. Yields its port, and what the page tells."""
    results: queue.Queue[str] = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(PAGE)

        def do_POST(self) -> None:
            results.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.answer(b"")

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, results
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def browsing(url: str, folder: str) -> Iterator[None]:
    """A browser that shows a page, until the context ends."""
    assert BROWSER is not None
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        f"--user-data-dir={folder}",
    ]
    options += ["--remote-debugging-port=0", "--host-resolver-rules=MAP rebound.example 127.0.0.1"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([BROWSER, *options, url], stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        process.terminate()
        process.wait(DEADLINE)


@pytest.mark.parametrize(
    ("page_host", "worker_host", "listed", "result"),
    [
        ("localhost", "localhost", False, "refused"),
        ("rebound.example", "rebound.example", False, "refused"),
        ("rebound.example", "rebound.example", True, "refused"),
        ("localhost", "localhost", True, "open"),
    ],
    ids=["another origin", "a rebound name", "a rebound name that is listed", "a listed origin"],
)
def test_a_page_of_another_origin_cannot_open_a_connection(
    site, tmp_path, page_host, worker_host, listed, result
):
    port, results = site
    origin = f"http://{page_host}:{port}"
    with serving(Server(allow_origins=[origin] if listed else [])) as worker:
        url = f"{origin}/#{worker_host}:{worker.port}"
        with browsing(url, str(tmp_path / "profile")):
            assert results.get(timeout=DEADLINE) == result
