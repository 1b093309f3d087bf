"""Since you last looked: which locations have come to need somebody, and which no longer do."""

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import DatabaseError

from dashboard.access import Rights
from dashboard.fleet import fleet_of
from dashboard.models import Look

# After so long without looking, it is another visit: what was seen before that is "last".
VISIT = timedelta(minutes=30)
NOTED_EVERY = timedelta(minutes=1)

log = logging.getLogger(__name__)


class Since(NamedTuple):
    """What has changed since somebody last looked."""

    at: datetime
    new: int
    closed: int


def since_last(user_id: int, rights: Rights, *, now: datetime) -> Since | None:
    """What has changed since the visit before this one; ``None`` at the first."""
    look = Look.objects.filter(pk=user_id).first()
    if look is None:
        return None
    at, needing = look.before_at, look.before_needing
    if now - look.seen_at > VISIT:
        at, needing = look.seen_at, look.needing
    if at is None:
        return None
    then, today = _read(needing), _needing(rights, now)
    seen = then if rights.everything else then & rights.location_ids
    return Since(at, new=len(today - seen), closed=len(seen - today))


def note(user_id: int, rights: Rights, *, now: datetime) -> None:
    """Note that the user has looked, at most once a minute. Not for bounded reads: it writes."""
    try:
        look = Look.objects.filter(pk=user_id).first()
        if look is not None and now - look.seen_at < NOTED_EVERY:
            return
        needing = _written(_needing(rights, now))
        if look is None:
            Look.objects.get_or_create(
                pk=user_id, defaults={"seen_at": now, "needing": needing, "before_needing": ""}
            )
            return
        changed = {"seen_at": now, "needing": needing}
        if now - look.seen_at > VISIT:
            changed |= {"before_at": look.seen_at, "before_needing": look.needing}
        # Only who still finds it as it was writes: of two tabs, one.
        Look.objects.filter(pk=user_id, seen_at=look.seen_at).update(**changed)
    except DatabaseError:  # a look that is not noted is no reason to show no page
        log.warning("A look could not be noted", exc_info=True)


def _needing(rights: Rights, now: datetime) -> frozenset[int]:
    return fleet_of(None if rights.everything else rights.location_ids, now=now).needing


def _read(text: str) -> frozenset[int]:
    return frozenset(int(pk) for pk in text.split(",") if pk)


def _written(locations: Iterable[int]) -> str:
    return ",".join(str(pk) for pk in sorted(locations))
