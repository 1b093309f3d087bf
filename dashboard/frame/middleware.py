"""Answers to those who came from HighLevel: its frame may show them, and keeps their cookies.

All other answers are shown in the frames of ``FRAME_ANCESTORS`` alone, with cookies that no other
site's page sends.
"""

from collections.abc import Container
from http import HTTPStatus
from http.cookies import Morsel
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import resolve_url
from django.urls import reverse
from django.utils.csp import CSP, build_policy
from django.utils.deprecation import MiddlewareMixin

from dashboard.frame.ancestors import ancestors, is_on

FRAMED = "framed"  # in the session, and on the request: the id of the company, or ""


class _Partitioned(Morsel[str]):
    """A cookie that browsers keep for our pages inside one other site, and send nowhere else.

    The standard library knows the attribute from Python 3.14 on.
    """

    def OutputString(self, attrs: Container[str] | None = None) -> str:  # noqa: N802
        """The cookie as it is sent."""
        return f"{super().OutputString(attrs)}; Partitioned"


class FrameMiddleware(MiddlewareMixin):
    """Stands around sessions, messages and X-Frame-Options, whose headers it corrects."""

    def process_response[Answer: HttpResponseBase](
        self, request: HttpRequest, answer: Answer
    ) -> Answer:
        """The answer as it leaves."""
        company = company_of(request) if is_on() else None
        if company is not None:
            _allow(answer, ancestors(company or None))
            if request.is_secure():
                _partition(answer)
            return answer
        if settings.FRAME_ANCESTORS:
            _allow(answer, settings.FRAME_ANCESTORS)
        if _leads_to_login(request, answer):
            asked = urlencode({"next": request.get_full_path()})
            answer["Location"] = f"{reverse('dashboard:frame')}?{asked}"
        return answer


def company_of(request: HttpRequest) -> str | None:
    """The company by whose frame somebody came; "" before they did, ``None`` for all others."""
    session = getattr(request, "session", None)
    found: str | None = getattr(request, FRAMED, None)
    if found is None and session is not None and session.accessed:
        found = session.get(FRAMED)
    return found


def _allow(answer: HttpResponseBase, origins: list[str]) -> None:
    policy: dict[str, Any] = {**settings.SECURE_CSP, "frame-ancestors": [CSP.SELF, *origins]}
    answer["Content-Security-Policy"] = build_policy(policy)
    del answer["X-Frame-Options"]  # it knows no list


def _partition(answer: HttpResponseBase) -> None:
    for name, cookie in answer.cookies.items():
        partitioned = _Partitioned()
        partitioned.update(cookie)
        partitioned.set(cookie.key, cookie.value, cookie.coded_value)
        partitioned["samesite"], partitioned["secure"] = "None", True
        answer.cookies[name] = partitioned


def _leads_to_login(request: HttpRequest, answer: HttpResponseBase) -> bool:
    """Whether a frame is sent to the page for passwords, which no frame shows."""
    return (
        answer.status_code == HTTPStatus.FOUND
        and answer["Location"].startswith(f"{resolve_url(settings.LOGIN_URL)}?")
        and request.headers.get("Sec-Fetch-Dest") == "iframe"
        and bool(settings.HIGHLEVEL_SHARED_SECRET)
    )
