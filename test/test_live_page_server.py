"""The live page's server against pages that should not look, and pages that send garbage."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("websockets")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from timar_ros.errors import UserError
from timar_ros.evaluation.report.report_page import live_page
from timar_ros.live.page_commands import read_command, read_sound
from timar_ros.live.page_server import LONGEST_MESSAGE, MOST_PAGES, PageServer

PATIENCE = 60.0


@dataclass
class Running:
    """A server, and what reached it."""

    got: queue.Queue[Any] = field(default_factory=queue.Queue)
    gone: queue.Queue[int] = field(default_factory=queue.Queue)
    server: Any = None

    def take(self, identity: int, message: str | bytes) -> None:
        self.got.put((identity, read_sound(message) if isinstance(message, bytes) else read_command(message)))

    def __enter__(self) -> Running:  # noqa: PYI034 (typing.Self needs 3.11)
        self.server = PageServer(live_page(), self.take, self.gone.put)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def connect(self, *, token: str | None = None, origin: str | None = "same", **headers: str) -> ClientConnection:
        url = urlsplit(self.server.address)
        given = url.query.removeprefix("token=") if token is None else token
        return connect(
            f"ws://{url.netloc}/live?token={given}",
            origin=f"http://{url.netloc}" if origin == "same" else origin,
            additional_headers=headers,
            proxy=None,
            open_timeout=PATIENCE,
            close_timeout=1.0,
        )

    def get(self, path: str, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE)
        connection.request("GET", path, headers=headers)
        return connection.getresponse()


@pytest.fixture
def running() -> Iterator[Running]:
    with Running() as made:
        yield made


def next_of(page: ClientConnection, kind: str) -> dict[str, Any]:
    while True:
        message = page.recv(timeout=PATIENCE)
        if isinstance(message, str) and (found := json.loads(message))["kind"] == kind:
            return found


def test_the_page_comes_to_who_has_the_token(running: Running) -> None:
    url = urlsplit(running.server.address)
    assert url.hostname == "127.0.0.1"
    assert len(url.query) > 30
    answer = running.get(f"/?{url.query}")
    assert answer.status == 200
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    page = answer.read().decode()
    assert page == live_page()
    assert url.query.removeprefix("token=") not in page
    for path in ("/", "/?token=", "/?token=wrong", "/live", "/../etc/passwd"):
        assert running.get(path).status == 403, path
    assert running.get(f"/other?{url.query}").status == 404
    # The name of another host that somebody makes point here.
    assert running.get(f"/?{url.query}", Host="evil.example:80").status == 403


@pytest.mark.parametrize("wrong", [{"token": "wrong"}, {"origin": "http://evil.example"}, {"origin": None}])
def test_no_other_page_gets_a_socket(running: Running, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidStatus) as caught:
        running.connect(**wrong)
    assert caught.value.response.status_code == 403
    assert running.server.refused == 1
    assert running.server.pages == 0


def test_garbage_is_answered_and_harms_nothing(running: Running) -> None:
    with running.connect() as bad, running.connect() as good:
        for garbage in ("", "no JSON", "[" * 60_000, '{"do": "rm -rf"}', b"x", b"", '{"do":"style","name":"seed"}'):
            bad.send(garbage)
            answer = next_of(bad, "answer")
            assert not answer["good"]
            assert answer["words"]
        good.send('{"do": "reset"}')
        assert running.got.get(timeout=PATIENCE)[1].button == "reset"
        # Too much at once ends that page's connection, and no other.
        bad.send("x" * (LONGEST_MESSAGE + 1))
        with pytest.raises(ConnectionClosed):
            bad.recv(timeout=PATIENCE)
        running.gone.get(timeout=PATIENCE)
        running.server.tell("now", {"time": 1.0})
        assert next_of(good, "now")["time"] == 1.0
    assert running.got.empty()


def test_the_newest_state_counts_and_what_is_kept_comes_first(running: Running) -> None:
    running.server.tell("body", {"robot": "one"}, keep=True)
    running.server.tell("now", {"time": 0.0})
    with running.connect() as page:
        assert json.loads(page.recv(timeout=PATIENCE)) == {"kind": "body", "robot": "one"}
        running.server.play(b"nobody listens")
        page.send('{"do": "hear"}')
        identity, _ = running.got.get(timeout=PATIENCE)
        running.server.hear(identity, on=True)
        running.server.play(b"12345678")
        assert page.recv(timeout=PATIENCE) == b"12345678"
    with pytest.raises(ValueError, match="JSON compliant"):
        running.server.tell("now", {"time": float("nan")})


def test_a_page_that_does_not_read_delays_nobody(running: Running) -> None:
    with running.connect() as idle, running.connect() as page:
        large = "x" * 200_000
        for number in range(300):  # far more than a socket holds
            running.server.tell("now", {"number": number, "large": large})
        assert next_of(page, "now")["number"] >= 0
        running.server.tell("last", {})
        assert next_of(page, "last")
        assert running.server.pages == 2
        del idle


def test_only_so_many_look(running: Running) -> None:
    with contextlib.ExitStack() as pages:
        for _ in range(MOST_PAGES):
            pages.enter_context(running.connect())
        with pytest.raises(InvalidStatus):
            running.connect()


def test_a_port_that_is_taken_is_named(running: Running) -> None:
    with pytest.raises(UserError, match=f"port {running.server.port} of 127.0.0.1 cannot be opened"):
        PageServer("", running.take, running.gone.put, port=running.server.port)
