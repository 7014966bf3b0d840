"""A receiver of VMC on 127.0.0.1: python-osc's server."""

from __future__ import annotations

import threading
import time
from typing import Any

from pythonosc.dispatcher import Dispatcher
from pythonosc.osc_server import ThreadingOSCUDPServer


class Receiver:
    """Collects messages until a frame is complete (/VMC/Ext/Blend/Apply)."""

    def __init__(self) -> None:
        self.messages: list[tuple[Any, ...]] = []
        self.arrived: list[float] = []
        """When each frame was complete [s since the epoch]."""
        self.complete = threading.Semaphore(0)
        dispatcher = Dispatcher()
        dispatcher.set_default_handler(self._take)
        self.server = ThreadingOSCUDPServer(("127.0.0.1", 0), dispatcher)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def _take(self, address: str, *values: Any) -> None:
        self.messages.append((address, *values))
        if address == "/VMC/Ext/Blend/Apply":
            self.arrived.append(time.time())
            self.complete.release()

    def frame(self) -> dict[str, Any]:
        assert self.complete.acquire(timeout=20), self.messages
        return {"head": next(m for m in self.messages if m[0].endswith("Bone/Pos")), "messages": list(self.messages)}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
