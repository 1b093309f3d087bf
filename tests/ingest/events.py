"""Events for tests: made by hand, or drawn by hypothesis as whole lives of messages."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from hypothesis import strategies as st

from ingest.fold import counted_measures
from ingest.normalize import Detail, NormalizedEvent
from ingest.vocabulary import MEASURES, EventKind

SECOND = 1_000_000
START = 1_790_000_000 * SECOND  # 2026-09-21, an hour boundary plus 13 minutes 20


def event(kind: str = "delivered", at: float = 0, **fields: Any) -> NormalizedEvent:
    """An event of one delivery, ``at`` seconds after START; its key is a digest of what it says."""
    detail: Mapping[str, Any] = fields.pop("detail", {})
    values: dict[str, Any] = {
        "kind": EventKind[kind.upper()],
        "location_ref": "loc1",
        "occurred_at": START + int(at * SECOND),
        "message_id": "m1@example.com",
        "recipient": "jane@example.org",
        "domain": "example.org",
        "content": 1,
    } | fields
    made = repr((sorted(values.items()), sorted(detail.items()))).encode()
    key = values.pop("key", blake2b(made, digest_size=16).digest())
    return NormalizedEvent(key=key, detail=Detail(**detail), **values)


_codes = st.sampled_from([None, 250, 421, 450, 452, 550, 552, 554, 605])
_details = st.fixed_dictionaries(
    {},
    optional={
        "code": _codes,
        "enhanced": st.sampled_from(["", "4.2.2", "5.1.1", "5.7.1"]),
        "ip": st.sampled_from(["", "192.0.2.1", "192.0.2.2"]),
        "pool": st.sampled_from(["", "a", "b"]),
        "mx": st.sampled_from(["", "mx1.example.net", "mx2.example.net"]),
        "message": st.sampled_from(["", "user unknown", "mailbox full", "blocked by spamhaus"]),
        "attempt": st.integers(1, 5),
    },
)
events = st.builds(
    lambda kind, at, detail, fields: event(kind, at, detail=detail, **fields),
    st.sampled_from([kind.word for kind in EventKind]),
    st.sampled_from([0, 0, 1, 1.5, 600, 3_000, 7_200, 90_000]),
    _details,
    st.fixed_dictionaries(
        {},
        optional={
            "tags": st.frozensets(st.sampled_from(["promo", "news", "et_workflow", "vip"])),
            "campaign_rank": st.just(0),
            "provider": st.sampled_from(["Gmail", "Outlook", "Other"]),
            "provider_rank": st.integers(0, 2),
            "sending_domain": st.sampled_from(["mg.example.com", "send.example.com"]),
            "sending_domain_rank": st.integers(1, 3),
            "delivered_at": st.sampled_from([None, START + SECOND]),
            "test": st.sampled_from([False] * 9 + [True]),
            "delayed_bounce": st.booleans(),
            "machine": st.booleans(),
        },
    ),
)


@st.composite
def named_events(draw: st.DrawFn) -> NormalizedEvent:
    """An event that may name a campaign, as the payload's two sources do."""
    plain = draw(events)
    rank = draw(st.sampled_from([0, 0, 1, 2]))
    if not rank:
        return plain
    fields = {name: getattr(plain, name) for name in plain.__struct_fields__}
    fields |= {
        "campaign_rank": rank,
        "campaign": draw(st.sampled_from(["workflow:w1", "workflow:w2", "spring"])),
        "step": draw(st.sampled_from(["", "s1", "s2"])),
    }
    return NormalizedEvent(**fields)


def lives(most: int = 8) -> st.SearchStrategy[list[NormalizedEvent]]:
    """Some events of one delivery, in any order, repetitions included."""
    return st.lists(named_events(), min_size=1, max_size=most)


def contribution(outcome: int, flags: int, bounce_class: int) -> tuple[int, ...]:
    """What a delivery adds to its counters: 0 or 1 a measure, in the order of ``MEASURES``."""
    counted = counted_measures(outcome, flags, bounce_class)
    return tuple(int(i in counted) for i in range(len(MEASURES)))
