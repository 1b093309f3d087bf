"""A process that listens on many sockets of a server on this machine.

It says ``ready`` when all have their first frame, then waits for one line with the last cursor to
expect and the seconds to wait for it, and writes down what came when. All sockets with one filter
get the same bytes: each distinct frame is read once, so that a hundred cost little more than one.
It listens on ``/ws/events/``, or with ``--pages`` on ``/ws/live/``, one socket for each of a list
of query strings.
"""

import argparse
import asyncio
import base64
import functools
import os
import re
import struct
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import uvloop

EVENTS, PAGES = "/ws/events/", "/ws/live/?"
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


_LINE, _MARK = re.compile(rb'<li id="event-(\d+)"'), re.compile(rb'<i [^>]*data-cursor="(\d+)"')


class Frames:
    """Every distinct frame's rows, read once: (cursor, event id), and the frame's own cursor.

    Those of pages have lines without an event id; ``patched`` tells which brought regions.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self.rows: list[list[tuple[int, str]]] = []
        self.cursors: list[int] = []
        self.patched: list[bool] = []

    def number(self, payload: bytes) -> int:
        """The frame's number, the same for the same bytes."""
        known = self._numbers.get(payload)
        if known is None:
            known = self._numbers[payload] = len(self.rows)
            (self._read if payload.startswith(b"{") else self._read_page)(payload)
        return known

    def _read(self, payload: bytes) -> None:
        frame = orjson.loads(payload)
        self.rows.append([(row["cursor"], row["event_id"]) for row in frame["events"]])
        self.cursors.append(frame["cursor"])
        self.patched.append(False)

    def _read_page(self, payload: bytes) -> None:
        self.rows.append([(int(cursor), "") for cursor in _LINE.findall(payload)])
        self.cursors.append(max(map(int, _MARK.findall(payload))))
        self.patched.append(b'hx-swap-oob="patch"' in payload)


class Socket(asyncio.Protocol):
    """One websocket, as far as a reader of whole text frames needs it."""

    def __init__(self, frames: Frames, token: str, path: str) -> None:
        self.frames, self.token, self.path = frames, token, path
        self.buffer, self.open = bytearray(), False
        self.closed = ""
        self.received: list[tuple[int, int]] = []  # (frame number, time.monotonic_ns())
        self.cursor = -1

    def connection_made(self, transport: Any) -> None:
        """Ask for the socket."""
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
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


async def listen(port: int, paths: list[str], token: str, out: Path) -> None:
    """Open a socket for each path, wait for the word to end, write what came to ``out``."""
    loop, frames = asyncio.get_running_loop(), Frames()
    sockets: list[Socket] = []
    for path in paths:
        made = functools.partial(Socket, frames, token, path)
        _, socket = await loop.create_connection(made, "127.0.0.1", port)
        sockets.append(socket)
    await until(lambda: all(socket.received or socket.closed for socket in sockets), 60)
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
        "patched": frames.patched,
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
    parser.add_argument("--pages", type=Path, help="a JSON list of query strings of pages")
    asked = parser.parse_args()
    paths = [EVENTS] * asked.sockets
    if asked.pages:
        paths = [PAGES + query for query in orjson.loads(asked.pages.read_bytes())]
    uvloop.run(listen(asked.port, paths, os.environ["BENCH_TOKEN"], asked.out))


if __name__ == "__main__":
    main()
