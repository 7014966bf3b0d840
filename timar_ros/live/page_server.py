"""The web server of the live page: the page itself, and one WebSocket to each browser that shows it.

It listens on this machine alone. Its address carries a random token. It refuses requests that lack the token, that use
another host's name, or that come from another site's page. A slow browser skips states and delays no other browser.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http
import json
import secrets
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from timar_ros.errors import UserError

HOST = "127.0.0.1"

LONGEST_MESSAGE = 65_536
"""Largest message of a page [bytes]."""

MOST_PAGES = 8
"""Most browsers at the same time."""

MOST_WAITING = 50
"""Most pieces of sound that wait for a slow browser: two seconds."""

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src 'self' ws://127.0.0.1:* ws://localhost:*; worker-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class _Page:
    """One browser: the newest unsent states, and waiting sound."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.states: dict[str, str] = {}
        self.sound: list[bytes] = []
        self.hears = False
        self.waiting = asyncio.Event()

    async def send(self) -> None:
        """Send waiting states and sound until the browser disconnects."""
        while await self.waiting.wait():
            self.waiting.clear()
            states, self.states = self.states, {}
            sound, self.sound = self.sound, []
            for text in states.values():
                await self.connection.send(text)
            for piece in sound:
                await self.connection.send(piece)


class PageServer:
    """Serves one page from its own thread, until it is closed.

    :param page: the page's HTML.
    :param take: called in the server's thread with the browser's identity and its message (text or bytes). The browser
        receives the text of a UserError that ``take`` raises.
    :param gone: called in the server's thread with the identity of a browser that has disconnected.
    :param port: port to listen on; 0: a free one.
    :param token: token of the address; empty: a random one.
    :raises UserError: when the port is in use.
    """

    def __init__(
        self,
        page: str,
        take: Callable[[int, str | bytes], None],
        gone: Callable[[int], None],
        *,
        port: int = 0,
        token: str = "",
    ) -> None:
        self._page, self._take, self._gone = page.encode(), take, gone
        self._token = token or secrets.token_urlsafe(24)
        self._pages: dict[int, _Page] = {}
        self._kept: dict[str, str] = {}
        self._next = 0
        self.refused = 0
        """Number of refused messages and requests."""
        self._loop = asyncio.new_event_loop()
        self._server: Server | None = None
        started = threading.Event()
        self._failures: list[OSError] = []
        self._thread = threading.Thread(target=self._run, args=(port, started), name="page server", daemon=True)
        self._thread.start()
        started.wait()
        if self._failures:
            self._thread.join()
            reason = self._failures[0].strerror or self._failures[0]
            raise UserError(f"port {port} of {HOST} cannot be opened: {reason}; choose another `port`")

    @property
    def address(self) -> str:
        """The page's address, with its token."""
        return f"http://{HOST}:{self.port}/?token={self._token}"

    @property
    def pages(self) -> int:
        """Number of browsers that show the page."""
        return len(self._pages)

    def tell(self, kind: str, state: dict[str, Any], *, keep: bool = False) -> None:
        """Send a state to all browsers; it replaces an unsent state of the same kind.

        :param keep: send the state to later browsers, too.
        """
        text = json.dumps({"kind": kind, **state}, allow_nan=False, separators=(",", ":"))
        self._call(lambda: self._tell(kind, text, keep))

    def answer(self, identity: int, words: str, *, good: bool) -> None:
        """Send one browser an answer to its command."""
        text = json.dumps({"kind": "answer", "words": words, "good": good})
        self._call(lambda: self._post(self._pages.get(identity), "answer", text))

    def play(self, sound: bytes) -> None:
        """Send sound to the browsers with enabled sound."""
        self._call(lambda: self._play(sound))

    def hear(self, identity: int, *, on: bool) -> None:
        """Enable or disable the sound for one browser."""
        self._call(lambda: self._hear(identity, on))

    def close(self) -> None:
        """End all connections and the thread."""
        self._call(lambda: self._loop.create_task(self._stop()))
        self._thread.join(timeout=10.0)

    # In the server's thread -------------------------------------------------------------------------------------------

    def _call(self, what: Callable[[], Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(what)

    def _run(self, port: int, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._open(port))
        except OSError as error:
            self._failures.append(error)
            return
        finally:
            started.set()
            if self._failures:
                self._loop.close()
        self._loop.run_forever()
        self._loop.close()

    async def _open(self, port: int) -> None:
        self._server = await serve(
            self._converse,
            HOST,
            port,
            process_request=self._admit,
            max_size=LONGEST_MESSAGE,
            max_queue=8,
            close_timeout=1.0,
            compression=None,
            server_header=None,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        self._loop.stop()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a request for the page; let a WebSocket through (None); refuse everything else."""
        hosts = {f"{HOST}:{self.port}", f"localhost:{self.port}"}
        url = urlsplit(request.path)
        token = parse_qs(url.query).get("token", [""])[0]
        origin = request.headers.get("Origin")
        if request.headers.get("Host") not in hosts:
            return self._refuse(connection, http.HTTPStatus.FORBIDDEN, "another host's name")
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return self._refuse(connection, http.HTTPStatus.FORBIDDEN, "the address lacks the token; use it as printed")
        if url.path == "/":
            return Response(200, "OK", _headers(len(self._page)), self._page)
        if url.path != "/live":
            return self._refuse(connection, http.HTTPStatus.NOT_FOUND, "no such page")
        if origin not in {f"http://{host}" for host in hosts}:
            return self._refuse(connection, http.HTTPStatus.FORBIDDEN, "another site's page")
        if len(self._pages) >= MOST_PAGES:
            return self._refuse(connection, http.HTTPStatus.SERVICE_UNAVAILABLE, "too many pages are open already")
        return None

    def _refuse(self, connection: ServerConnection, status: http.HTTPStatus, reason: str) -> Response:
        self.refused += 1
        return connection.respond(status, f"timar live: {reason}\n")

    async def _converse(self, connection: ServerConnection) -> None:
        self._next += 1
        identity, page = self._next, _Page(connection)
        self._pages[identity] = page
        page.states.update(self._kept)
        page.waiting.set()
        sender = asyncio.create_task(page.send())
        try:
            async for message in connection:
                try:
                    self._take(identity, message)
                except UserError as error:
                    self.refused += 1
                    self.answer(identity, str(error), good=False)
        except ConnectionClosed:
            pass
        finally:
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await sender
            del self._pages[identity]
            self._gone(identity)

    def _tell(self, kind: str, text: str, keep: bool) -> None:
        if keep:
            self._kept[kind] = text
        for page in self._pages.values():
            self._post(page, kind, text)

    @staticmethod
    def _post(page: _Page | None, kind: str, text: str) -> None:
        if page is not None:
            page.states[kind] = text
            page.waiting.set()

    def _play(self, sound: bytes) -> None:
        for page in self._pages.values():
            if page.hears:
                page.sound = [*page.sound[1 - MOST_WAITING :], sound]
                page.waiting.set()

    def _hear(self, identity: int, on: bool) -> None:
        if identity in self._pages:
            self._pages[identity].hears = on


def _headers(length: int) -> Headers:
    return Headers(
        {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": str(length),
            "Content-Security-Policy": POLICY,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
        }
    )
