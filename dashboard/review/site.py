"""Who enters the admin: staff, and operators for what is theirs."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import resolve_url


class ReviewSite(admin.AdminSite):
    """Django's admin, opened to operators: each model's admin says what they see of it."""

    site_header = site_title = "Sendwatch"
    index_title = "Review and settings"

    def has_permission(self, request: HttpRequest) -> bool:
        """Whether ``dashboard.access`` lets this user in."""
        from dashboard.access import may_enter_admin  # the site is made before the models

        return may_enter_admin(request.user)

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Any:
        """A view for those who may enter: others who are logged in are told so, not asked again."""
        inner = super().admin_view(view, cacheable)

        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if request.user.is_authenticated and not self.has_permission(request):
                raise PermissionDenied
            if view.__name__ == "history_view":
                _refuse_history(view, request)
            return inner(request, *args, **kwargs)

        return update_wrapper(guarded, inner)

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """There is one way to log in, and it is not here."""
        if request.user.is_authenticated and not self.has_permission(request):
            raise PermissionDenied
        wanted = request.GET.get("next", "")
        return redirect_to_login(wanted or resolve_url("admin:index"), settings.LOGIN_URL)


def _refuse_history(view: Callable[..., Any], request: HttpRequest) -> None:
    """Raise ``PermissionDenied`` for who may see nothing of the model.

    Django's own looks for the row first, and answers otherwise where there is none: so it tells
    which keys are taken.
    """
    of_model: admin.ModelAdmin[Any] | None = getattr(view, "__self__", None)
    if of_model is not None and not of_model.has_view_or_change_permission(request):
        raise PermissionDenied
