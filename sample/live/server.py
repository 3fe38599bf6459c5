"""The live page over HTTP, by the standard library: the page is the viewer's own.

    GET  /               the page
    POST /motions        a wish as JSON; the answer holds motions as the viewer reads them
    GET  /progress       how far that is
    GET  /export/0/bvh   a motion for other tools

Other sites' scripts cannot use it: a request has to name this host, and a wish has to come as JSON,
which browsers do not send elsewhere unasked.
"""

import json
import re
import threading
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

from sample.live.form import form
from sample.live.studio import Studio, Wish
from sample.viewer.page import POLICY, SCRIPTS, describe, fill_page
from utils.errors import UserError

LONGEST_REQUEST = 10_000  # bytes
HERE = ("127.0.0.1", "localhost", "[::1]")


def open_server(studio: Studio, host: str, port: int) -> ThreadingHTTPServer:
    """Bound and not yet serving; port 0 takes any that is free.

    Raises UserError where the address cannot be had.
    """
    handler = partial(Handler, studio, host, threading.Lock())
    try:
        return ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port} cannot be opened ({error.strerror})"
        ) from None


class Handler(BaseHTTPRequestHandler):
    """One request. One wish at a time is worked on; the next is told to wait."""

    def __init__(self, studio: Studio, host: str, busy: threading.Lock, *request: Any) -> None:
        self.studio, self.host, self.busy = studio, host, busy
        super().__init__(*request)

    def do_GET(self) -> None:
        if not self.is_addressed():
            return
        if self.path == "/":
            page = fill_page(
                "Motions from text",
                scripts=(*SCRIPTS, "live.js"),
                form=form(self.studio.first_wish),
                policy=f"{POLICY}; connect-src 'self'",
            )
            self.answer(page.encode(), "text/html; charset=utf-8")
        elif self.path == "/progress":
            progress = self.studio.progress
            self.answer_json({"done": progress.done, "total": progress.total})
        elif found := re.fullmatch(r"/export/(\d+)/(\w+)", self.path):
            self.send(int(found[1]), found[2])
        else:
            self.refuse(HTTPStatus.NOT_FOUND, f"there is no {self.path}")

    def send(self, run: int, kind: str) -> None:
        try:
            file = self.studio.export(run, kind)
        except UserError as error:
            self.refuse(HTTPStatus.NOT_FOUND, str(error))
        else:
            name = f"attachment; filename*=UTF-8''{quote(file.name)}"
            self.answer(file.content, "application/octet-stream", disposition=name)

    def do_POST(self) -> None:
        if not self.is_addressed():
            return
        stated = self.headers.get("Content-Length", "")
        length = int(stated) if stated.isdecimal() else 0
        if self.path != "/motions" or not 0 < length <= LONGEST_REQUEST:
            self.refuse(HTTPStatus.BAD_REQUEST, "POST takes a wish of a few lines at /motions")
        elif self.headers.get_content_type() != "application/json":
            self.refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a wish is application/json")
        elif not self.busy.acquire(blocking=False):
            self.refuse(HTTPStatus.CONFLICT, "another motion is being made; try again")
        else:
            try:
                content, status = self.make(self.rfile.read(length)), HTTPStatus.OK
            except (UserError, ValueError) as error:
                content, status = {"error": str(error)}, HTTPStatus.BAD_REQUEST
            finally:
                self.busy.release()  # before the answer, after which the page may ask again
            self.answer_json(content, status)

    def make(self, body: bytes) -> dict[str, Any]:
        """The motions that a wish asks for. Raises UserError and ValueError for what is none."""
        wish = Wish.read(json.loads(body))
        page, motions = describe(self.studio.fulfil(wish), self.studio.skeleton)
        return {"page": page | {"pages": [], "number": 0}, "motions": motions}

    def is_addressed(self) -> bool:
        """Does the request name this host? A name that a foreign site points here is refused."""
        name = self.headers.get("Host", "").rsplit(":", 1)[0]
        if self.host in HERE and name not in HERE:
            self.refuse(HTTPStatus.FORBIDDEN, "this page answers to its own address only")
            return False
        return True

    def refuse(self, status: HTTPStatus, why: str) -> None:
        self.answer_json({"error": why}, status)

    def answer_json(self, content: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.answer(json.dumps(content).encode(), "application/json", status)

    def answer(
        self,
        body: bytes,
        kind: str,
        status: HTTPStatus = HTTPStatus.OK,
        disposition: str = "inline",
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Disposition", disposition)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """The terminal stays free for what the models say."""
