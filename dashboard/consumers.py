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
from django.http import Http404

from dashboard import queries
from dashboard.access import (
    NOTHING,
    LinkPass,
    Pass,
    Rights,
    client_link,
    pass_of_bearer,
    pass_of_session,
    rights_by,
)
from dashboard.client_links import confined
from dashboard.filters import Filter, FilterError, parse
from dashboard.hub import BEHIND_CODE, GOING_CODE, hub
from dashboard.models import ApiToken
from dashboard.mutes import NOBODY, Viewer, viewer_of
from dashboard.pages import PAGES
from dashboard.pages.page import Page
from dashboard.streams import Behind, Closing

BAD_FILTER, NOT_FOUND, RIGHTS_CHANGED, TOO_OLD = 4400, 4404, 4403, 4410
# Seconds between two looks at a pass, and how old what another socket saw may be: so an end of
# rights is noticed after four seconds at the latest.
RIGHTS_AGE = 2.0
# What each pass in use gives, and when (time.monotonic()) that was seen.
_recent_rights: dict[Pass | LinkPass, tuple[float, Rights | None]] = {}


class Gate:
    """Lets in a session or a client link from our own pages, or a bearer token from anywhere.

    A browser sends the session's cookie for any site that opens a socket, so the Origin must be
    ours; it never sends a bearer token by itself, and programs send no Origin. A socket with a
    ``link`` has the link's rights, whoever is logged in.
    """

    def __init__(self, inner: Any) -> None:
        self._bearer = inner
        self._session = AllowedHostsOriginValidator(AuthMiddlewareStack(inner))
        self._link = AllowedHostsOriginValidator(inner)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        header = next((v for n, v in scope["headers"] if n == b"authorization"), b"")
        now = datetime.now(UTC)
        if not header and (token := _link_of(scope)) is not None:
            link = await database_sync_to_async(client_link)(token, now=now)
            scope = {**scope, "pass": LinkPass(token) if link else None}
            return await self._link(scope, receive, send)
        if not header:
            return await self._session(scope, receive, send)
        held = await database_sync_to_async(pass_of_bearer)(header.decode("latin-1"), now=now)
        if held is not None and not held.allows(ApiToken.Scope.READ):
            held = None
        return await self._bearer({**scope, "pass": held}, receive, send)


def _link_of(scope: dict[str, Any]) -> str | None:
    """The token in the parameter ``link``; ``None`` without one."""
    return dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("link")


class _Refused(Exception):
    """The socket is closed with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class _Socket(AsyncWebsocketConsumer):
    """Checks who asks and for what, then sends a stream until one side ends it."""

    takes_links = False
    _tasks: tuple[asyncio.Task[None], ...] = ()
    _pass: Pass | LinkPass

    async def connect(self) -> None:
        """Refuse strangers before the handshake; say what is wrong with a filter after it."""
        if "pass" in self.scope:
            held = self.scope["pass"]
        else:
            held = pass_of_session(self.scope["user"], self.scope["session"].session_key)
        if held is None or (isinstance(held, LinkPass) and not self.takes_links):
            await self.close()
            return
        self._pass = held
        await self.accept()
        self._tasks = (asyncio.create_task(self._serve()), asyncio.create_task(self._watch()))

    async def disconnect(self, code: int) -> None:
        """The browser left."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _recent_rights.pop(self._pass, None)

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
        """Close when the pass gives other rights than those that the stream was made with."""
        rights = await self._look()
        while rights is not None and rights == await self._recent_rights():
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
        return await self._look() or NOTHING

    async def _look(self) -> Rights | None:
        """What the pass gives now: the scope's user is as old as the socket."""
        load = database_sync_to_async(rights_by)
        rights: Rights | None = await load(self._pass, now=datetime.now(UTC))
        _recent_rights[self._pass] = time.monotonic(), rights
        return rights

    async def _recent_rights(self) -> Rights | None:
        """The same, looked up once for all the sockets that are open by one pass."""
        known = _recent_rights.get(self._pass)
        if known is None or known[0] < time.monotonic() - RIGHTS_AGE:
            return await self._look()
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

    takes_links = True

    async def _stream(self, params: list[tuple[str, str]]) -> AsyncIterator[str]:
        rights = await self._rights()
        name = dict(params).get("view", "overview")
        if name not in PAGES:
            raise _Refused(BAD_FILTER, f"«view» is one of {', '.join(PAGES)}.")
        page, by_link = PAGES[name], isinstance(self._pass, LinkPass)
        if by_link and page.name != "location":
            raise _Refused(NOT_FOUND, "a link shows its location's page only")
        also = ("view", "after", "link", *page.accepted)
        filter = await self._filter(params, rights, also=also, default_range=page.default_range)
        try:
            asked = page.ask(filter, rights, page.options(params), await self._viewer(page))
        except FilterError as error:
            raise _Refused(BAD_FILTER, str(error)) from error
        after = _cursor([value for name, value in params if name == "after"])
        frames = hub.fragments(page, asked, after)
        return _confined(frames) if by_link else frames

    async def _viewer(self, page: Page) -> Viewer:
        if not page.personal or isinstance(self._pass, LinkPass):
            return NOBODY
        look = database_sync_to_async(viewer_of)
        found: Viewer = await look(self._pass.user, now=datetime.now(UTC))
        return found


async def _confined(frames: AsyncIterator[str]) -> AsyncIterator[str]:
    async for html in frames:
        yield confined(html)
