"""What the header of every page needs to know of who looks at it.

Django renders errors in threads of their own. A connection that was opened there would stay open,
so pages of errors ask for nothing, and who looks is known before.
"""

from typing import Any

from django.http import HttpRequest
from django.utils.deprecation import MiddlewareMixin
from django.utils.functional import SimpleLazyObject

from dashboard.access import may_enter_admin


def menu(request: HttpRequest) -> dict[str, Any]:
    """``operates``: whether they operate anything; asked of the database where a page uses it."""
    user = getattr(request, "user", None)
    return {"operates": SimpleLazyObject(lambda: user is not None and may_enter_admin(user))}


class KnownUserMiddleware(MiddlewareMixin):
    """Looks up who is logged in before anything can go wrong."""

    def process_request(self, request: HttpRequest) -> None:
        """Ask for the user now: ``request.user`` waits until it is needed."""
        bool(request.user.is_authenticated)
