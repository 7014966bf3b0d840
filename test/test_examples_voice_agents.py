"""Voice agents' examples against a stand-in head and a local stand-in server; Pipecat and LiveKit where installed."""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
RATE = 24000


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports an example, as a user's program beside it does."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for name in ("voice_output", "realtime_api", "pipecat_output", "livekit_output"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module


@dataclass
class StandInHead:
    """Plays what is said as fast as the test lets time pass: ``pass_time`` is the loudspeaker."""

    lead: float = 0.5
    said: dict[int, list[np.ndarray]] = field(default_factory=dict)
    finished: list[int] = field(default_factory=list)
    cancelled: int = 0
    current: int = 0
    open: bool = False
    heard: float = 0.0

    def say(self, pcm: bytes, rate: int) -> int:
        if not self.open:
            self.current, self.open, self.heard = self.current + 1, True, 0.0
        self.said.setdefault(self.current, []).append(np.frombuffer(pcm, "<i2"))
        return self.current

    def finish(self) -> None:
        self.finished.append(self.current)
        self.open = False

    def cancel(self) -> None:
        self.cancelled += 1
        self.open = False

    def seconds(self) -> float:
        return sum(len(piece) for piece in self.said.get(self.current, [])) / RATE

    def pass_time(self, seconds: float) -> None:
        self.heard = min(self.heard + seconds, self.seconds())

    def played(self) -> Any:
        return SimpleNamespace(utterance=self.current, seconds=self.heard, speaking=self.heard < self.seconds())


async def until(holds: Any) -> None:
    """Let the others run until something holds."""
    async with asyncio.timeout(60) if sys.version_info >= (3, 11) else _Forever():
        while not holds():
            await asyncio.sleep(0.001)


class _Forever:
    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *_: object) -> None: ...


PCM = np.arange(-12000, 12000, dtype="<i2")  # a second


def test_a_sender_is_held_back_once_enough_waits(example: Any) -> None:
    async def run() -> None:
        head = StandInHead()
        voice = example("voice_output").VoiceOutput(head, ahead=2.0)
        for _ in range(2):
            await voice.play(PCM.tobytes(), RATE)
        third = asyncio.ensure_future(voice.play(PCM.tobytes(), RATE))
        await asyncio.sleep(0.05)
        assert not third.done()
        head.pass_time(1.0)
        await third
        head.pass_time(0.25)
        waiting = asyncio.ensure_future(voice.play(PCM.tobytes(), RATE))
        await asyncio.sleep(0.01)
        assert voice.interrupt() == 1.25
        await waiting  # an interruption frees the sender
        assert head.cancelled == 1
        await voice.play(PCM.tobytes(), RATE)
        voice.finish()
        done = asyncio.ensure_future(voice.done())
        await asyncio.sleep(0.01)
        assert not done.done()
        head.pass_time(1.0)
        await done
        assert head.finished == [2]

    asyncio.run(run())


async def stand_in_server(socket: Any, head: StandInHead, log: list[dict[str, Any]]) -> None:
    """Behaves as the API's documentation says: an answer of 3 s in bursts, the partner amid it, then a short answer."""

    async def send(kind: str, **fields: Any) -> None:
        await socket.send(json.dumps({"type": kind, **fields}))

    async def burst(item: str, seconds: int) -> None:
        for _ in range(seconds * 10):
            delta = base64.b64encode(PCM[:2400].tobytes()).decode()
            await send("response.output_audio.delta", item_id=item, content_index=0, delta=delta)

    log.append(json.loads(await socket.recv()))
    await send("session.updated")
    await burst("item_1", 3)
    await send("response.output_audio.done", item_id="item_1", content_index=0)
    await until(lambda: head.seconds() >= 2.0)
    head.pass_time(1.2)
    await send("input_audio_buffer.speech_started", audio_start_ms=5000, item_id="item_user")
    log.append(json.loads(await socket.recv()))
    await burst("item_1", 1)  # what was on its way
    await send("conversation.item.truncated", item_id="item_1", content_index=0, audio_end_ms=1200)
    await burst("item_2", 1)
    await send("response.output_audio.done", item_id="item_2", content_index=0)
    await until(lambda: head.finished == [2])
    head.pass_time(1.0)
    await send("error", error={"message": "a made-up error"})
    await send("input_audio_buffer.speech_started", audio_start_ms=9000, item_id="item_user_2")
    await send("input_audio_buffer.committed", item_id="item_user_2")


def test_a_realtime_api_bursts_and_is_interrupted(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The head is silenced, and the server learns how much of its answer was heard; a heard answer is not cut."""
    pytest.importorskip("websockets", reason="the realtime API's example needs websockets")
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import serve

    api = example("realtime_api")

    async def run() -> tuple[StandInHead, list[dict[str, Any]]]:
        head, log = StandInHead(), []
        async with serve(lambda socket: stand_in_server(socket, head, log), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}") as socket:
                await api.converse(socket, head)
        return head, log

    head, log = asyncio.run(run())
    assert [event["type"] for event in log] == ["session.update", "conversation.item.truncate"]
    cut = {key: log[1][key] for key in ("item_id", "content_index", "audio_end_ms")}
    assert cut == {"item_id": "item_1", "content_index": 0, "audio_end_ms": 1200}
    assert head.finished == [2]
    np.testing.assert_array_equal(np.concatenate(head.said[2]), np.tile(PCM[:2400], 10))
    assert len(np.concatenate(head.said[1])) <= 2.2 * RATE  # what was not asked for yet was never said
    assert "a made-up error" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "package"), [("pipecat_output", "pipecat-ai"), ("livekit_output", "livekit-agents")])
def test_a_framework_drives_the_head(example: Any, name: str, package: str) -> None:
    loaded: ModuleType = example(name)
    if loaded.MISSING:
        assert f"pip install {package}" in loaded.MISSING
        pytest.skip(loaded.MISSING)
    {"pipecat_output": pipecat_speaks, "livekit_output": livekit_speaks}[name](loaded)


def pipecat_speaks(loaded: ModuleType) -> None:
    """A pipeline with the output alone: audio, an interruption, and an answer's end reach the head."""
    from pipecat.frames.frames import InterruptionFrame, TTSAudioRawFrame, TTSStoppedFrame
    from pipecat.processors.frame_processor import FrameDirection

    async def run() -> StandInHead:
        head = StandInHead()
        output = loaded.HeadOutput(head)
        await output.write_audio_frame(TTSAudioRawFrame(PCM[:2400].tobytes(), RATE, 1))
        await output.write_transport_frame(TTSStoppedFrame())
        await output.write_audio_frame(TTSAudioRawFrame(PCM[:2400].tobytes(), RATE, 1))
        try:
            await output.process_frame(InterruptionFrame(), FrameDirection.DOWNSTREAM)
        except Exception as error:  # no pipeline stands around it
            print(f"outside of a pipeline: {error}")
        return head

    head = asyncio.run(run())
    assert head.finished == [1]
    assert head.cancelled == 1
    assert [len(np.concatenate(pieces)) for pieces in head.said.values()] == [2400, 2400]


def livekit_speaks(loaded: ModuleType) -> None:
    """Playback is reported by what the loudspeaker played, whole and interrupted."""
    from livekit import rtc

    async def run() -> list[tuple[float, bool]]:
        head, events = StandInHead(), []
        output = loaded.HeadOutput(head)
        output.on("playback_finished", lambda ev: events.append((ev.playback_position, ev.interrupted)))
        frame = rtc.AudioFrame(PCM.tobytes(), RATE, 1, len(PCM))
        await output.capture_frame(frame)
        output.flush()
        head.pass_time(1.0)
        await until(lambda: len(events) == 1)
        await output.capture_frame(frame)
        output.flush()
        head.pass_time(0.25)
        output.clear_buffer()
        await output.wait_for_playout()
        return events

    assert asyncio.run(run()) == [(1.0, False), (0.25, True)]
