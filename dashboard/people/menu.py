"""What the header of every page needs to know of who looks at it."""

from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from dashboard.access import may_enter_admin


def menu(request: HttpRequest) -> dict[str, Any]:
    """``operates``: whether they operate anything; asked of the database where a page uses it."""
    user = getattr(request, "user", None)
    return {"operates": SimpleLazyObject(lambda: user is not None and may_enter_admin(user))}
