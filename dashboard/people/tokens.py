"""One's own API tokens: made here, shown once, revoked."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from dashboard import audit
from dashboard.access import may_make_tokens
from dashboard.models import ApiToken
from dashboard.people.forms import TokenForm, end_of


@require_http_methods(["GET", "POST"])
def tokens(request: HttpRequest) -> HttpResponse:
    """Who asks sees their tokens, and one that was just made."""
    allowed, made = may_make_tokens(request.user), ""
    form = TokenForm(request.POST or None)
    if request.method == "POST":
        if not allowed:
            raise PermissionDenied
        if form.is_valid():
            made, form = _make(request, form), TokenForm()
    held = ApiToken.objects.filter(user_id=request.user.pk or 0).order_by("-created_at")
    context = {"form": form, "made": made, "held": held, "allowed": allowed, "now": timezone.now()}
    answer = render(request, "dashboard/people/tokens.html", context)
    answer["Cache-Control"] = "private, no-store"
    return answer


def _make(request: HttpRequest, form: TokenForm) -> str:
    asked = form.cleaned_data
    with transaction.atomic():
        audit.note(request.user, "make token", asked["name"], scopes=asked["scopes"])
        return ApiToken.issue(
            user_id=request.user.pk or 0,
            name=asked["name"],
            scopes=asked["scopes"],
            expires_at=end_of(asked["days"], timezone.now()),
        )


@require_POST
def revoke(request: HttpRequest, pk: int) -> HttpResponseBase:
    """End one of one's own tokens; sockets that are open by it follow within seconds."""
    with transaction.atomic():
        token = get_object_or_404(ApiToken, pk=pk, user_id=request.user.pk)
        token.delete()
        audit.note(request.user, "revoke token", token.name or pk)
    messages.success(request, f"The token {token.name} lets nobody in any more.")
    return redirect("dashboard:tokens")
