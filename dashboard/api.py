"""The JSON API and the health checks. Errors are ``{"error": "one plain sentence"}``."""

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any
from urllib.parse import urlencode

import orjson
from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.cache import patch_cache_control, patch_vary_headers

from dashboard import queries
from dashboard.access import Pass, Rights, pass_of_bearer, pass_of_session, rights_by, rights_of
from dashboard.bounded import TookTooLong, bounded_reads
from dashboard.explained import explain
from dashboard.filters import Filter, FilterError, parse
from dashboard.health import database_problems, layer_problems
from dashboard.models import ApiToken
from ingest.metrics import exposition

MAX_ROWS = 1_000
EVENTS_LIMIT = 500
ROWS_LIMIT = 50

type View = Callable[..., HttpResponseBase]


class Json(HttpResponse):
    """A JSON answer. It is a person's own: no shared cache may keep it."""

    def __init__(self, content: object, *, status: int = 200) -> None:
        body = orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)
        super().__init__(body, status=status, content_type="application/json")
        patch_cache_control(self, private=True, no_cache=True)
        patch_vary_headers(self, ["Authorization", "Cookie"])


def _refusal(sentence: str, *, status: int, **more: object) -> Json:
    return Json({"error": sentence, **more}, status=status)


def api_view(view: View, scope: ApiToken.Scope = ApiToken.Scope.READ) -> View:
    """A GET that takes the session, or an ``Authorization: Bearer`` token of this scope.

    What is asked for as CSV is an export, whichever view makes it. Calls
    ``view(request, rights, …)``. Answers 401, 403 for what a token is not good for, 404 for
    what may not be seen, 400 for a ``FilterError`` and 503 for ``TookTooLong`` itself, in JSON,
    where the login middleware would redirect.
    """

    @login_not_required
    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method not in ("GET", "HEAD"):
            refusal = _refusal("Only GET is allowed here.", status=405)
            refusal["Allow"] = "GET, HEAD"
            return refusal
        held = _pass(request)
        if held is None:
            refusal = _refusal("Log in, or send a valid token as a Bearer header.", status=401)
            refusal["WWW-Authenticate"] = "Bearer"
            return refusal
        needed = ApiToken.Scope.EXPORT if "csv" in request.GET.getlist("format") else scope
        if not held.allows(needed):
            return _refusal(f"This token is not good for «{needed.value}».", status=403)
        try:
            return view(request, rights_of(held.user), *args, **kwargs)
        except FilterError as error:
            return _refusal(str(error), status=400)
        except Http404 as error:
            return _refusal(str(error), status=404)
        except TookTooLong as error:
            return _refusal(str(error), status=503)

    return answer


def _pass(request: HttpRequest) -> Pass | None:
    """What who asks is let in by. A token that is no good is refused, whatever the session says."""
    header = request.headers.get("Authorization", "")
    if header[:6].lower() == "bearer":
        return pass_of_bearer(header, now=timezone.now())
    return pass_of_session(request.user, request.session.session_key)


def rights_now(request: HttpRequest) -> Rights | None:
    """The rights of who asked, read anew: for answers that take long."""
    held = _pass(request)
    return rights_by(held, now=timezone.now()) if held else None


def asked(
    request: HttpRequest, *page: str, default_range: str | None = None
) -> tuple[Filter, dict[str, str]]:
    """The filter, and the parameters of the page by their names, each given at most once."""
    params = [(name, value) for name, values in request.GET.lists() for value in values]
    filter = parse(params, now=timezone.now(), also=page, default_range=default_range)
    own: dict[str, str] = {}
    for name, value in params:
        if name in own:
            raise FilterError(f"{name} can be given only once.")
        if name in page:
            own[name] = value
    return filter, own


def number(own: dict[str, str], name: str, *, default: int, low: int, high: int) -> int:
    """A parameter of the page as a number. Raises ``FilterError`` for anything else."""
    text = own.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and low <= int(text) <= high):
        raise FilterError(f"{name} is a number from {low:,} to {high:,}.")
    return int(text)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _next(request: HttpRequest, filter: Filter, **page: object) -> str:
    """The address of what follows: the same filter, further on."""
    params = urlencode(page)
    query = f"{filter.canonical()}&{params}" if filter.canonical() else params
    return request.build_absolute_uri(f"{request.path}?{query}")


@api_view
def events(request: HttpRequest, rights: Rights) -> HttpResponse:
    """``/api/events/?after=<cursor>``: events in the order of their cursors.

    ``next`` may lead past a stretch without matches; it is null at the newest event, whose
    ``cursor`` is the ``after`` to come back with. 410 where what followed is no longer kept;
    ``complete_from`` is set where what was asked for goes back further than that.
    """
    filter, own = asked(request, "after", "limit")
    after = number(own, "after", default=0, low=0, high=2**63 - 1)
    limit = number(own, "limit", default=EVENTS_LIMIT, low=1, high=MAX_ROWS)
    if queries.is_pruned(after):
        oldest = queries.oldest_cursor()
        sentence = f"Events before cursor {oldest} are no longer kept: go on after {oldest - 1}."
        return _refusal(sentence, status=410, oldest=oldest)
    with bounded_reads():
        page = queries.events_page(filter, rights, after=after, limit=limit)
    more = {"after": page.cursor} | ({"limit": limit} if "limit" in own else {})
    return Json(
        {
            "results": [row.as_json() for row in page.rows],
            "next": _next(request, filter, **more) if page.more else None,
            "cursor": page.cursor,
            "complete_from": _iso(queries.events_complete_from(filter, after=after)),
        }
    )


@api_view
def deliveries(request: HttpRequest, rights: Rights) -> HttpResponse:
    """``/api/deliveries/``: deliveries, the newest by their sending first.

    ``complete_from`` is set where the question goes back further than they are kept.
    """
    filter, own = asked(request, "before", "limit")
    limit = number(own, "limit", default=ROWS_LIMIT, low=1, high=MAX_ROWS)
    with bounded_reads():
        page = queries.deliveries_page(filter, rights, before=own.get("before", ""), limit=limit)
    more = {"before": page.before} | ({"limit": limit} if "limit" in own else {})
    return Json(
        {
            "results": [row.as_json() for row in page.rows],
            "next": _next(request, filter, **more) if page.before else None,
            "complete_from": _iso(queries.deliveries_complete_from(filter)),
        }
    )


@api_view
def delivery(request: HttpRequest, rights: Rights, pk: int) -> HttpResponse:
    """``/api/deliveries/<pk>/``: one delivery with its events in the order of their times.

    With its attempts, and why it was refused in words: for itself and each failed event.
    """
    found = queries.get_delivery(pk, rights)
    explained = explain(found)
    history = [
        row.as_json() | {"classification": failure.as_json() if failure else None}
        for row in queries.events_of(found, rights)
        for failure in [explained.failures.get(row.cursor)]
    ]
    classification = explained.failure.as_json() if explained.failure else None
    return Json(
        found.as_json()
        | {"classification": classification, "attempts": explained.attempts_as_json()}
        | {"events": history}
    )


# --- Health ------------------------------------------------------------------------------


@login_not_required
def healthz(request: HttpRequest) -> HttpResponse:
    """Alive: the process answers."""
    return HttpResponse("ok\n", content_type="text/plain")


@api_view
def metrics(request: HttpRequest, rights: Rights) -> HttpResponse:
    """``/metrics``: Prometheus's text, for those who may see everything (a token will do)."""
    if not rights.everything:
        raise Http404("There is nothing here.")
    text, content_type = exposition()
    return HttpResponse(text, content_type=content_type)


@login_not_required
async def readyz(request: HttpRequest) -> HttpResponse:
    """Ready: database writable, migrations applied, channel layer reachable; else 503."""
    problems = await sync_to_async(database_problems)() | await layer_problems()
    return Json({"ready": not problems, **problems}, status=503 if problems else 200)
