"""The two websockets: ``/ws/events/`` for programs, ``/ws/live/`` for the pages."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from channels.auth import AuthMiddlewareStack
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.security.websocket import AllowedHostsOriginValidator
from django.contrib.auth.models import AnonymousUser, User
from django.http import Http404

from dashboard import queries
from dashboard.access import Rights, rights_of, user_of_bearer
from dashboard.filters import Filter, FilterError, parse
from dashboard.hub import BEHIND_CODE, GOING_CODE, hub
from dashboard.pages import PAGES
from dashboard.streams import Behind, Closing

BAD_FILTER, NOT_FOUND, RIGHTS_CHANGED, TOO_OLD = 4400, 4404, 4403, 4410
RIGHTS_AGE = 3.0  # seconds until a socket notices that its user's rights have changed
_recent_rights: dict[int, tuple[float, Rights]] = {}  # by user: when (time.monotonic()), what


class Gate:
    """Lets in a session from our own pages (Origin checked), or a bearer token from anywhere.

    A browser sends the session's cookie for any site that opens a socket, so the Origin must be
    ours; it never sends a bearer token by itself, and programs send no Origin.
    """

    def __init__(self, inner: Any) -> None:
        self._bearer = inner
        self._session = AllowedHostsOriginValidator(AuthMiddlewareStack(inner))

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        header = next((v for n, v in scope["headers"] if n == b"authorization"), b"")
        if not header:
            return await self._session(scope, receive, send)
        now = datetime.now(UTC)
        user = await database_sync_to_async(user_of_bearer)(header.decode("latin-1"), now=now)
        return await self._bearer({**scope, "user": user}, receive, send)


class _Refused(Exception):
    """The socket is closed with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class _Socket(AsyncWebsocketConsumer):
    """Checks who asks and for what, then sends a stream until one side ends it."""

    _tasks: tuple[asyncio.Task[None], ...] = ()

    async def connect(self) -> None:
        """Refuse strangers before the handshake; say what is wrong with a filter after it."""
        user = self.scope.get("user")
        if user is None or not user.is_authenticated or not user.is_active:
            await self.close()
            return
        await self.accept()
        self._tasks = (asyncio.create_task(self._serve()), asyncio.create_task(self._watch()))

    async def disconnect(self, code: int) -> None:
        """The browser left."""
        for task in self._tasks:
            task.cancel()

    async def _serve(self) -> None:
        try:
            params = parse_qsl(self.scope["query_string"].decode(), keep_blank_values=True)
            async for text in await self._stream(params):
                await self.send(text_data=text)
        except _Refused as refused:
            await self._end(refused.code, refused.reason)
        except Behind:
            await self._end(BEHIND_CODE, "too far behind; resume after your last cursor")
        except Closing:
            await self._end(GOING_CODE, "the server is restarting")

    async def _watch(self) -> None:
        """Close when the user's rights are no longer those that the stream was made with."""
        rights = await self._rights()
        _recent_rights[self.scope["user"].pk] = time.monotonic(), rights
        while rights == await self._recent_rights():
            await asyncio.sleep(RIGHTS_AGE)
        await self._end(RIGHTS_CHANGED, "your rights have changed")

    async def _end(self, code: int, reason: str) -> None:
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        # A close frame has room for 123 bytes of reason.
        await self.close(code=code, reason=reason.encode()[:123].decode(errors="ignore"))

    async def _rights(self) -> Rights:
        """The user's rights as they are now: the scope's user is as old as the socket."""

        def load() -> Rights:
            user = User.objects.filter(pk=self.scope["user"].pk).first()
            return rights_of(user or AnonymousUser())

        rights: Rights = await database_sync_to_async(load)()
        return rights

    async def _recent_rights(self) -> Rights:
        """The same, looked up once for all the sockets that a user has open."""
        user, now = self.scope["user"].pk, time.monotonic()
        known = _recent_rights.get(user)
        if known is None or known[0] < now - RIGHTS_AGE:
            known = _recent_rights[user] = now, await self._rights()
        return known[1]

    async def _stream(self, params: list[tuple[str, str]]) -> AsyncIterator[str]:
        raise NotImplementedError

    async def _filter(
        self, params: list[tuple[str, str]], rights: Rights, **options: Any
    ) -> Filter:
        def check() -> Filter:
            asked = parse(params, now=datetime.now(UTC), **options)
            asked.check_locations(rights)
            return asked

        try:
            asked: Filter = await database_sync_to_async(check)()
        except FilterError as error:
            raise _Refused(BAD_FILTER, str(error)) from error
        except Http404 as error:
            raise _Refused(NOT_FOUND, "no such location") from error
        return asked


class EventSocket(_Socket):
    """``/ws/events/?<filters>&after=<cursor>``: JSON frames, every event once, in cursor order."""

    async def _stream(self, params: list[tuple[str, str]]) -> AsyncIterator[str]:
        rights = await self._rights()
        filter = await self._filter(params, rights, also=("after",), default_range=None)
        after = _cursor([value for name, value in params if name == "after"])
        if after is not None and await database_sync_to_async(queries.is_pruned)(after):
            oldest = await database_sync_to_async(queries.oldest_cursor)()
            raise _Refused(TOO_OLD, str(oldest))
        return hub.events(filter, rights, after)


def _cursor(values: list[str]) -> int | None:
    if not values:
        return None
    if len(values) > 1 or not values[0].isdecimal() or len(values[0]) > 18:
        raise _Refused(BAD_FILTER, "«after» takes one cursor, a whole number.")
    return int(values[0])


class LiveSocket(_Socket):
    """``/ws/live/?<filters>&after=<cursor>``: the HTML fragments of a page that have changed.

    ``after`` is the last event that the page knows, as it was painted or as a frame said.
    """

    async def _stream(self, params: list[tuple[str, str]]) -> AsyncIterator[str]:
        rights = await self._rights()
        name = dict(params).get("view", "overview")
        if name not in PAGES:
            raise _Refused(BAD_FILTER, f"«view» is one of {', '.join(PAGES)}.")
        page = PAGES[name]
        also = ("view", "after", *page.accepted)
        filter = await self._filter(params, rights, also=also, default_range=page.default_range)
        try:
            asked = page.ask(filter, rights, page.options(params))
        except FilterError as error:
            raise _Refused(BAD_FILTER, str(error)) from error
        after = _cursor([value for name, value in params if name == "after"])
        return hub.fragments(page, asked, after)
