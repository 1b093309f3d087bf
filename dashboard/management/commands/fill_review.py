"""``manage.py fill_review``: the review queues, brought up to the newest event."""

from typing import Any

from django.core.management.base import BaseCommand

from dashboard import suppressing
from dashboard.review import filling
from dashboard.review.models import ReviewCase


class Command(BaseCommand):
    """What a server does beside its requests, done at once."""

    help = "Fills the review queues from the events that came since; servers do so by themselves."

    def handle(self, *args: Any, **options: Any) -> None:
        """Follow the events to their end, the suppression list first: the queues read its marks."""
        while suppressing.follow_some():
            pass
        while filling.fill():
            pass
        waiting = ReviewCase.objects.filter(state=ReviewCase.State.OPEN).count()
        self.stdout.write(f"{waiting} cases are open")
