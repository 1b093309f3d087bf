"""The bell: tells whoever shows events that there are new ones, never what they are.

Channel layers drop messages when a reader lags, so nothing depends on one arriving: the hub
reads the event table after its own cursor, and the bell only wakes it earlier.
"""

import asyncio
import logging
from collections.abc import Callable

from asgiref.sync import async_to_sync
from channels.layers import BaseChannelLayer, InMemoryChannelLayer, get_channel_layer

GROUP = "sendwatch.events"
logger = logging.getLogger(__name__)

# Hubs of this process; they are told directly, whatever the layer.
listeners: list[Callable[[], None]] = []


def ring(loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Say that events were committed. From the recorder's thread, with its server's loop;
    from a command, without one. Never raises: a lost bell only costs a fraction of a second.
    """
    for listener in listeners:
        listener()
    layer = get_channel_layer()
    if layer is None or isinstance(layer, InMemoryChannelLayer):
        return  # nobody outside this process could hear it
    if loop is None:
        async_to_sync(_ring_layer)(layer)
    elif not loop.is_closed():
        asyncio.run_coroutine_threadsafe(_ring_layer(layer), loop)


async def _ring_layer(layer: BaseChannelLayer) -> None:
    try:
        await layer.group_send(GROUP, {"type": "events.recorded"})
    except Exception as error:  # redis and its client raise many kinds; none may stop the recorder
        logger.warning("the channel layer did not take the bell: %s", error)
