"""Daphne with a stop that loses nothing: it answers or refuses all that it holds.

Plain Daphne cancels every request the moment it is told to stop, also one whose webhook is
being committed. Here the recorder first refuses new work and finishes what it has.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from channels.routing import get_default_application
from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server
from daphne.ws_protocol import WebSocketProtocol
from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
ANSWER_SECONDS = 2.0


def serve(host: str, port: int, *, ready: Callable[[str], None]) -> str:
    """Serve until SIGTERM or SIGINT; call ``ready`` with the URL once connections are taken.

    Returns what went wrong, ``""`` after a clean stop. Port 0 is any free port.
    """
    server = _Server(host, port, ready)
    server.run()
    return server.problem


class _Socket(WebSocketProtocol):
    """Daphne's socket, which also tells the browser why it was closed."""

    _reason: str | None = None

    def handle_reply(self, message: dict[str, Any]) -> None:
        self._reason = message.get("reason")
        super().handle_reply(message)

    def serverClose(self, code: int | None = None) -> None:
        # Autobahn's sendClose knows only codes for applications; 1012 is the server's own.
        reason = self._reason.encode() if self._reason else None
        self.sendCloseFrame(code=code or 1000, reasonUtf8=reason, isReply=False)


class _Server(Server):
    def __init__(self, host: str, port: int, ready: Callable[[str], None]) -> None:
        self.problem = ""
        self._ready = ready
        self._stopping = False
        self._ports: list[Any] = []
        (endpoint,) = build_endpoint_description_strings(host=host, port=port)
        super().__init__(
            application=get_default_application(),
            endpoints=[f"{endpoint}:backlog=1024"],
            signal_handlers=False,
            ready_callable=self._before_run,
            # A reader that does not answer is dropped before much is buffered for it.
            ping_interval=5,
            ping_timeout=10,
        )

    def _before_run(self) -> None:
        from dashboard.chores import chores

        chores.start()
        self.ws_factory.protocol = _Socket
        loop = asyncio.get_event_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        reactor.callWhenRunning(self._announce)

    def _announce(self) -> None:
        host, port = self.listening_addresses[0]
        self._ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/")

    def listen_success(self, port: Any) -> None:
        self._ports.append(port)
        super().listen_success(port)

    def listen_error(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, CannotListenError):
            reason = error.socketError.strerror if error.socketError else str(error)
            self.problem = f"Cannot listen on {error.interface}:{error.port}: {reason}"
        else:
            self.problem = failure.getErrorMessage()
        self.stop()

    def _on_signal(self, number: int) -> None:
        if not self._stopping:
            self._stopping = True
            self._stop_task = asyncio.ensure_future(self._stop_cleanly())
        elif number == signal.SIGINT:
            self.stop()  # Ctrl-C a second time: someone does not want to wait

    async def _stop_cleanly(self) -> None:
        try:
            await self._finish_work()
        except Exception:
            logger.exception("Stopping was not clean")
        finally:
            self.stop()

    async def _finish_work(self) -> None:
        from dashboard.chores import chores
        from dashboard.hub import hub
        from ingest.record import recorder

        chores.close()
        recorder.close()
        # A thread of its own: the loop's pool may be full of page queries.
        with ThreadPoolExecutor(1) as pool:
            loop = asyncio.get_running_loop()
            if not await loop.run_in_executor(pool, recorder.drain, DRAIN_SECONDS):
                logger.error("Webhooks still waiting after %s s get no answer", DRAIN_SECONDS)
        for port in self._ports:
            port.stopListening()
        await hub.close()
        await self._let_answers_out()

    async def _let_answers_out(self) -> None:
        running = [task for task in self._applications() if not task.done()]
        if running:
            await asyncio.wait(running, timeout=ANSWER_SECONDS)
        await asyncio.sleep(0.2)  # the transports write what they still buffer

    def _applications(self) -> Iterator[asyncio.Future[Any]]:
        for details in self.connections.values():
            if "application_instance" in details:
                yield details["application_instance"]

    def kill_all_applications(self) -> Any:
        # Daphne's own stumbles over connections whose application has already been reaped.
        for details in self.connections.values():
            details.setdefault("application_instance", _done())
        return super().kill_all_applications()


def _done() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_event_loop().create_future()
    future.set_result(None)
    return future
