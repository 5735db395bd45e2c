"""A real S3 server (moto) on loopback that goes wrong on demand, request by request."""

from __future__ import annotations

import math
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from tests.remotes.servers import ACCESS, SECRET

BUCKET = "team"
Environ = dict[str, Any]
Start = Callable[..., Any]
App = Callable[[Environ, Start], Iterable[bytes]]
Act = Callable[[App, Environ, Start], Iterable[bytes]]
"""Answers a request in place of the application, which it may ask."""


@dataclass
class _Fault:
    act: Act
    method: str
    part: str
    after: int
    times: float
    _matched: int = 0

    def strikes(self, method: str, target: str) -> bool:
        """Count a request that matches, and tell whether it is one that goes wrong."""
        if self.method not in ("", method) or self.part not in target:
            return False
        self._matched += 1
        return self.after < self._matched <= self.after + self.times


class FaultyS3:
    """The server as a WSGI application."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._faults: list[_Fault] = []
        self.endpoint = ""
        self.requests = 0
        self.struck = 0
        """Requests that went wrong since the server was healed."""
        self.healed = threading.Event()
        """Set when stalled connections may end."""

    def inject(
        self, act: Act, method: str = "", part: str = "", *, after: int = 0, times: float = math.inf
    ) -> None:
        """Let requests go wrong: those of a method with `part` in path and query, but the first."""
        with self._lock:
            self.healed.clear()
            self._faults.append(_Fault(act, method, part, after, times))

    def heal(self) -> None:
        """Answer every request from now on; stalled ones end."""
        with self._lock:
            self._faults.clear()
            self.requests = self.struck = 0
            self.healed.set()

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        method, target = environ["REQUEST_METHOD"], environ["REQUEST_URI"]
        with self._lock:
            struck = [fault for fault in self._faults if fault.strikes(method, target)]
            self.requests += 1
            self.struck += bool(struck)
        if struck:
            return struck[0].act(self._app, environ, start)
        return self._app(environ, start)

    def silent(self, app: App, environ: Environ, start: Start) -> Iterable[bytes]:
        """Take the request and never answer."""
        self.healed.wait()
        return _hang_up(environ)

    def stall(self, app: App, environ: Environ, start: Start) -> Iterable[bytes]:
        """Send half of the answer, then nothing more on an open connection."""
        body = b"".join(app(environ, start))
        yield body[: len(body) // 2]
        self.healed.wait()
        _hang_up(environ)


def refuse(status: str, code: str, message: str = "said by the test") -> Act:
    """Answer with an error of S3.

    As the real one does for some codes, the body repeats the credentials that came; it is one
    line, as that of Ceph; and a HEAD gets none.
    """

    def act(app: App, environ: Environ, start: Start) -> Iterable[bytes]:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN", "")
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            f"<Error><Code>{code}</Code><AWSAccessKeyId>{ACCESS}</AWSAccessKeyId>"
            f"<Token-0>{escape(token)}</Token-0><Message>{escape(message)}</Message></Error>"
        ).encode()
        is_head = environ["REQUEST_METHOD"] == "HEAD"
        length = [] if is_head else [("Content-Length", str(len(body)))]
        start(status, [("Content-Type", "application/xml"), *length])
        return [b"" if is_head else body]

    return act


def drop(app: App, environ: Environ, start: Start) -> Iterable[bytes]:
    """Close the connection before the request is read."""
    return _hang_up(environ)


def drop_answer(app: App, environ: Environ, start: Start) -> Iterable[bytes]:
    """Do what was asked, and close the connection instead of saying so."""
    list(app(environ, lambda *_: None))
    return _hang_up(environ)


def cut(app: App, environ: Environ, start: Start) -> Iterable[bytes]:
    """Send half of what the header promises, and close the connection."""
    body = b"".join(app(environ, start))
    yield body[: len(body) // 2]
    _hang_up(environ)


def late(pause_s: float) -> Act:
    """Let a request wait, and then do what was asked."""

    def act(app: App, environ: Environ, start: Start) -> Iterable[bytes]:
        time.sleep(pause_s)
        return app(environ, start)

    return act


def drip(pieces: int, pause_s: float) -> Act:
    """Send the answer in so many pieces with a pause before each."""

    def act(app: App, environ: Environ, start: Start) -> Iterable[bytes]:
        body = b"".join(app(environ, start))
        size = -(-len(body) // pieces) or 1
        for start in range(0, len(body), size):
            time.sleep(pause_s)
            yield body[start : start + size]

    return act


def _hang_up(environ: Environ) -> Iterable[bytes]:
    with suppress(OSError):  # the other side was quicker
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


@contextmanager
def faulty_s3() -> Iterator[FaultyS3]:
    """Run the server with an empty bucket."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other packages' imports have to say
        import boto3
        from moto.moto_server.werkzeug_app import create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: object) -> None:
            """Say nothing."""

    app = FaultyS3(create_backend_app("s3"))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        app.endpoint = f"http://127.0.0.1:{server.server_port}"
        boto3.client(
            "s3",
            endpoint_url=app.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
        ).create_bucket(Bucket=BUCKET)
        yield app
    finally:
        app.heal()
        server.shutdown()
        thread.join()
