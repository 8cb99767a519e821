"""A small web server on this machine, with the bad habits of real ones."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclass
class FileServer:
    """Serves `content` at every path, and notes the Range header of every request (None without one)."""

    content: bytes
    ranges: bool = True
    status: int = 200
    break_after: list[int] = field(default_factory=list)  # bytes until the n-th answer breaks off
    pause: float = 0.0  # seconds in the middle of an answer
    requests: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def running(self) -> Iterator[Self]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}/file.bin"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _handler(files: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            number = len(files.requests)
            files.requests.append(wanted)
            files.paths.append(self.path)
            if files.status != 200:
                self.send_error(files.status)
                return
            start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted and files.ranges else 0
            if start >= len(files.content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                total = len(files.content)
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            body = files.content[start:]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if number < len(files.break_after):
                body = body[: files.break_after[number]]
            self.wfile.write(body[: len(body) // 2])
            time.sleep(files.pause)
            self.wfile.write(body[len(body) // 2 :])

        def log_message(self, *_: object) -> None:
            pass

    return Handler
