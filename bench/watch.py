"""A process that listens on many ``/ws/events/`` sockets of a server on this machine.

It says ``ready`` when all have their first frame, then waits for one line with the last cursor to
expect and the seconds to wait for it, and writes down what came when. All sockets with one filter
get the same bytes: each distinct frame is read once, so that a hundred cost little more than one.
"""

import argparse
import asyncio
import base64
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import uvloop

PATH = "/ws/events/"
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


class Frames:
    """Every distinct frame's rows, read once: (cursor, event id), and the frame's own cursor."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self.rows: list[list[tuple[int, str]]] = []
        self.cursors: list[int] = []

    def number(self, payload: bytes) -> int:
        """The frame's number, the same for the same bytes."""
        known = self._numbers.get(payload)
        if known is None:
            frame = orjson.loads(payload)
            known = self._numbers[payload] = len(self.rows)
            self.rows.append([(row["cursor"], row["event_id"]) for row in frame["events"]])
            self.cursors.append(frame["cursor"])
        return known


class Socket(asyncio.Protocol):
    """One websocket, as far as a reader of whole text frames needs it."""

    def __init__(self, frames: Frames, token: str) -> None:
        self.frames, self.token = frames, token
        self.buffer, self.open = bytearray(), False
        self.closed = ""
        self.received: list[tuple[int, int]] = []  # (frame number, time.monotonic_ns())
        self.cursor = -1

    def connection_made(self, transport: Any) -> None:
        """Ask for the socket."""
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {self.token}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Take the handshake's answer, then every complete frame."""
        at = time.monotonic_ns()
        self.buffer += data
        if not self.open:
            head, found, rest = bytes(self.buffer).partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head[:15]:
                self.closed = head[:15].decode("latin-1")
                self.transport.close()
                return
            self.open, self.buffer = True, bytearray(rest)
        while (frame := self._next()) is not None:
            self._take(*frame, at)

    def _next(self) -> tuple[int, bytes] | None:
        """The first frame that is complete: its opcode and payload."""
        buffer, start = self.buffer, 2
        if len(buffer) < start:
            return None
        length = buffer[1] & 127
        if length > 125:
            start, form = (4, ">H") if length == 126 else (10, ">Q")
            if len(buffer) < start:
                return None
            (length,) = struct.unpack_from(form, buffer, 2)
        if len(buffer) < start + length:
            return None
        opcode, payload = buffer[0], bytes(buffer[start : start + length])
        del buffer[: start + length]
        if not opcode & 128:
            raise ValueError("a frame in fragments, which no server here sends")
        return opcode & 15, payload

    def _take(self, opcode: int, payload: bytes, at: int) -> None:
        if opcode == _TEXT:
            number = self.frames.number(payload)
            self.received.append((number, at))
            self.cursor = self.frames.cursors[number]
        elif opcode == _PING:  # a mask of zeros leaves the payload as it is
            self.transport.write(bytes((128 | _PONG, 128 | len(payload), 0, 0, 0, 0)) + payload)
        elif opcode == _CLOSE:
            self.closed = str(int.from_bytes(payload[:2]))
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Remember that it ended; the figures will say so."""
        self.closed = self.closed or "lost"


async def listen(port: int, count: int, token: str, out: Path) -> None:
    """Open the sockets, wait for the word to end, write what came to ``out``."""
    loop, frames = asyncio.get_running_loop(), Frames()
    sockets: list[Socket] = []
    for _ in range(count):
        _, socket = await loop.create_connection(lambda: Socket(frames, token), "127.0.0.1", port)
        sockets.append(socket)
    await until(lambda: all(socket.received or socket.closed for socket in sockets), 30)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    began = time.process_time()
    last, patience = (await loop.run_in_executor(None, sys.stdin.readline)).split()
    target = int(last)
    await until(lambda: all(s.cursor >= target or s.closed for s in sockets), float(patience))
    result = {
        "cpu_seconds": time.process_time() - began,
        "frames": frames.rows,
        "cursors": frames.cursors,
        "sockets": [{"closed": s.closed, "received": s.received} for s in sockets],
    }
    out.write_bytes(orjson.dumps(result))


async def until(holds: Any, seconds: float) -> None:
    """Wait until it holds, at most so long."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)


def main() -> None:
    """Listen as the arguments say; the token comes in the environment."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--sockets", type=int, default=100)
    asked = parser.parse_args()
    uvloop.run(listen(asked.port, asked.sockets, os.environ["BENCH_TOKEN"], asked.out))


if __name__ == "__main__":
    main()
