"""The ASGI application: webhooks to the edge, sockets to their consumers, the rest to Django."""

import asyncio
import os
import sys
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django = get_asgi_application()  # before the imports below: it loads the models

from channels.layers import get_channel_layer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from dashboard.chores import chores  # noqa: E402
from dashboard.consumers import EventSocket, Gate, LiveSocket  # noqa: E402
from dashboard.hub import hub  # noqa: E402
from ingest.checks import refuse_wrong_settings  # noqa: E402
from ingest.edge import edge  # noqa: E402
from ingest.record import recorder  # noqa: E402

DRAIN_SECONDS = 10.0
# A thread that renders a page gives way after half a millisecond, not five: the loop and the
# recorder, which wait for their turn after each statement, would stand still meanwhile.
sys.setswitchinterval(0.0005)
get_channel_layer()  # imported now, not by the first batch of webhooks while its senders wait

refuse_wrong_settings()  # servers other than manage.py's run no system checks


async def http(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Webhooks go past Django: they need neither sessions nor middleware, and come in floods."""
    app = edge if scope["path"].startswith("/webhooks/") else django
    await app(scope, receive, send)


async def lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Servers that speak the lifespan protocol let us finish what was taken before they stop.

    Daphne does not speak it: ``manage.py serve`` does the same on its signals.
    """
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            chores.start()
            await send({"type": "lifespan.startup.complete"})
        else:
            chores.close()
            recorder.close()
            await hub.close()
            await asyncio.to_thread(recorder.drain, DRAIN_SECONDS)
            await send({"type": "lifespan.shutdown.complete"})
            return


application = ProtocolTypeRouter(
    {
        "http": http,
        "lifespan": lifespan,
        "websocket": Gate(
            URLRouter(
                [
                    path("ws/events/", EventSocket.as_asgi()),
                    path("ws/live/", LiveSocket.as_asgi()),
                ]
            )
        ),
    }
)
