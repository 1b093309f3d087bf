"""Muting a card of what needs somebody: for a time, and at most until it gets worse."""

from datetime import timedelta

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone
from django.views.decorators.http import require_POST

from dashboard.access import rights_of
from dashboard.editing import back_to_page
from dashboard.filters import parse
from dashboard.models import Mute
from dashboard.needs import Card
from dashboard.pages import PAGES
from dashboard.pages.needed import MUTE_FOR, cards_of


@require_POST
def mute(request: HttpRequest) -> HttpResponseBase:
    """``mute=<hours> <card>`` mutes a card of the user's own overview; ``unmute=<card>`` ends that.

    How bad it is now is looked up, so that it can be told when it gets worse.
    """
    user_id, now = request.user.pk or 0, timezone.now()
    Mute.objects.filter(user_id=user_id, until__lte=now).delete()
    if name := request.POST.get("unmute", ""):
        Mute.objects.filter(user_id=user_id, card=name).delete()
        return back_to_page(request)
    hours, _, name = request.POST.get("mute", "").partition(" ")
    card = _card(request, name)
    if hours not in MUTE_FOR or card is None:
        messages.error(request, "Not muted: nothing like that needs you now.")
        return back_to_page(request)
    found = {"rank": card.rank, "weight": card.weight, "until": now + timedelta(hours=int(hours))}
    Mute.objects.update_or_create(user_id=user_id, card=name, defaults=found)
    messages.success(request, f"Muted for {MUTE_FOR[hours]}, unless it gets worse: {card.title}")
    return back_to_page(request)


def _card(request: HttpRequest, name: str) -> Card | None:
    """The card of this name among those of all locations that the user sees."""
    everywhere = parse([("range", "24h")], now=timezone.now())
    asked = PAGES["overview"].ask(everywhere, rights_of(request.user), {})
    return next((card for card in cards_of(asked) if card.name == name), None)
