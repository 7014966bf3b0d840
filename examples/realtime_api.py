"""A realtime speech API over WebSocket (events as OpenAI documents them) that speaks through the head.

OPENAI_API_KEY=… python examples/realtime_api.py wss://api.openai.com/v1/realtime?model=gpt-realtime

The server sends an answer in bursts faster than real time, and says when it hears the partner speak. The head is then
silenced, and the server is told how much of the answer was heard, so that it remembers no more than that.
Needs `pip install websockets`. The microphone's audio goes to the server from `user/audio`, which the graph has.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from voice_output import VoiceOutput

RATE = 24000  # of the API's PCM, both ways
SESSION = {
    "type": "realtime",
    "audio": {
        "input": {"format": {"type": "audio/pcm", "rate": RATE}, "turn_detection": {"type": "server_vad"}},
        "output": {"format": {"type": "audio/pcm", "rate": RATE}},
    },
}


async def converse(socket: Any, head: Any, microphone: AsyncIterator[bytes] | None = None) -> None:
    """Until the server closes the connection.

    :param socket: an open WebSocket: iterates over messages, and has ``send``.
    :param head: a `timar_ros.ros.Head`.
    :param microphone: the partner's PCM at 24 kHz, if it goes this way.
    """
    await socket.send(json.dumps({"type": "session.update", "session": SESSION}))
    voice = VoiceOutput(head)
    deltas: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    tasks = [asyncio.ensure_future(_speak(voice, deltas))]
    if microphone is not None:
        tasks.append(asyncio.ensure_future(_listen(socket, microphone)))
    item, cut = "", ""  # the answer at hand, and the one that was interrupted last
    try:
        async for message in socket:
            event = json.loads(message)
            kind = event["type"]
            if event.get("item_id") == cut != "":
                continue  # it was on its way when the answer was interrupted
            if kind == "response.output_audio.delta":
                item = event["item_id"]
                deltas.put_nowait((item, base64.b64decode(event["delta"])))
            elif kind == "response.output_audio.done":
                deltas.put_nowait((event["item_id"], b""))
            elif kind == "input_audio_buffer.speech_started" and item:
                while not deltas.empty():
                    deltas.get_nowait()
                complete = voice.said - voice.heard() <= 1e-3
                heard = voice.interrupt()
                if not complete:
                    where = {"item_id": item, "content_index": 0, "audio_end_ms": round(heard * 1000)}
                    await socket.send(json.dumps({"type": "conversation.item.truncate", **where}))
                item, cut = "", item
            elif kind == "error":
                print(f"the server refused: {event['error'].get('message')}", file=sys.stderr)
    finally:
        for task in tasks:
            task.cancel()


async def _speak(voice: VoiceOutput, deltas: asyncio.Queue[tuple[str, bytes]]) -> None:
    while True:
        _, pcm = await deltas.get()
        if pcm:
            await voice.play(pcm, RATE)
        else:
            voice.finish()


async def _listen(socket: Any, microphone: AsyncIterator[bytes]) -> None:
    async for pcm in microphone:
        await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(pcm).decode()}))


async def main(address: str) -> None:
    """Connect, and talk until the server ends it."""
    from websockets.asyncio.client import connect

    from timar_ros.ros import Head

    headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    with Head() as head:
        async with connect(address, additional_headers=headers) as socket:
            await converse(socket, head)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
