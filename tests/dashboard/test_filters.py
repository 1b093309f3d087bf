"""The filters' grammar, and that what is asked of the tables agrees with what is asked of rows."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.http import Http404
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dashboard.access import Rights
from dashboard.filters import RANGES, TERM_NAMES, Filter, FilterError, Term, parse
from dashboard.queries import event_rows
from dashboard.words import class_word
from ingest.counted import LETTERS
from ingest.models import CountedValue, CountedValues, Delivery, Event, Location, Value
from ingest.normalize import Detail
from ingest.vocabulary import BounceClass, Category, Dimension, EventKind, Flag, Outcome
from tests.dashboard import rows
from tests.dashboard.rows import NOW

EVERYTHING = Rights(everything=True)


def read(query: str, **options: object) -> Filter:
    return parse(parse_qsl(query, keep_blank_values=True), now=NOW, **options)  # type: ignore[arg-type]


def kept(query: str) -> set[int]:
    """Keys of the stored deliveries that a filter keeps."""
    return set(read(query).apply(Delivery.objects.all()).values_list("pk", flat=True))


# --- The grammar ---------------------------------------------------------------------------


def test_values_of_a_name_are_gathered_and_those_with_a_minus_left_out() -> None:
    filter = read("tag=a&tag=-b&tag=c&location=x")
    assert filter.values("tag") == ("a", "c")
    assert filter.values("tag", excluded=True) == ("b",)
    assert filter.names == {"tag", "location"}


@pytest.mark.parametrize(
    ("text", "value", "excluded"),
    [
        ("promo", "promo", False),
        ("-promo", "promo", True),
        ("\\-promo", "-promo", False),
        ("--promo", "-promo", True),
        ("\\\\x", "\\x", False),
        ("\\x", "\\x", False),
        ("-\\x", "\\x", True),
        ("(none)", "(none)", False),
    ],
)
def test_a_value_may_begin_with_a_minus(text: str, value: str, excluded: bool) -> None:
    assert parse([("tag", text)], now=NOW).terms == (Term("tag", value, excluded),)


MOVED_ALONE = (
    "outcome=moved is what was tried at an IP, pool or MX and settled elsewhere:"
    " it needs a filter ip, pool or mx."
)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("colour=red", "There is no filter named “colour”."),
        ("-tag=promo", "There is no filter named “-tag”."),
        ("tag=", "The filter tag has no value."),
        ("tag=-", "The filter tag has no value."),
        ("tag=a%00b", "The filter tag has a value that cannot be read."),
        ("tag=" + "x" * 401, "The filter tag has a value that cannot be read."),
        ("q=@", "The filter q has no value."),
        ("code=5xx", "code cannot be “5xx”: it is a number of three digits."),
        ("code=99999999999", "code cannot be “99999999999”: it is a number of three digits."),
        ("range=2h", "range cannot be “2h”: it is one of 1h, 24h, 7d, 30d, 90d."),
        ("range=24h&range=7d", "range can be given only once."),
        ("range=24h&from=2026-11-01", "Give either range, or from and to, not both."),
        ("clock=wall", "clock cannot be “wall”: it is one of sent, event."),
        ("from=2026-11-02&to=2026-11-01", "from lies after to."),
        ("reason=bounce", "reason cannot be “bounce”: it is the number of a reason."),
        ("outcome=moved", MOVED_ALONE),
        ("outcome=-moved&ip=-192.0.2.1", MOVED_ALONE),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(query: str, sentence: str) -> None:
    with pytest.raises(FilterError) as refusal:
        read(query)
    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    "query",
    [
        "outcome=gone", "outcome=Bounced", "class=none", "class=nasty", "category=none",
        "category=spam", "is=", "is=happy", "is=(none)", "code=0", "code=055",
        "from=yesterday", "from=", "to=2026-13-01", "from=0001-01-01", "to=9999-12-31T23:59-14:00",
        "from=1700000000", "tz=Mars/Olympus", "tz=", "tz=../etc/passwd", "tz=America", "range=",
        "tz=UTC&tz=UTC", "from=2026-01-01&from=2026-01-02", "q=<>", "reason=0", "reason=-",
        "reason=99999999999", "outcome=in_flight", "is=visible_reached",
    ],
)  # fmt: skip
def test_unknown_and_malformed_values_are_refused(query: str) -> None:
    with pytest.raises(FilterError):
        read(query)


def test_a_lone_surrogate_is_refused_and_never_shown() -> None:
    with pytest.raises(FilterError) as refusal:
        parse([("range", "\udc80")], now=NOW)
    str(refusal.value).encode()
    with pytest.raises(FilterError):
        parse([("tag", "\udc80")], now=NOW)


def test_a_filter_has_a_greatest_size() -> None:
    with pytest.raises(FilterError):
        parse([("tag", f"t{i}") for i in range(201)], now=NOW)


def test_parameters_of_the_page_are_passed_over() -> None:
    assert read("after=7&limit=3", also=("after", "limit")) == read("")


def test_forms_may_send_empty_fields() -> None:
    assert read("tag=&range=&q=&tag=a", blanks=True) == read("tag=a")


@pytest.mark.parametrize("name", TERM_NAMES)
def test_every_name_of_the_grammar_is_read(name: str) -> None:
    value = {"outcome": "bounced", "class": "hard", "category": "policy", "is": "late"}
    assert read(f"{name}={value.get(name, '550')}").names == {name}


# --- Time ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "start"),
    [
        ("1h", datetime(2026, 11, 22, 9, 30, tzinfo=UTC)),
        ("24h", datetime(2026, 11, 21, 10, tzinfo=UTC)),
        ("7d", datetime(2026, 11, 15, 10, tzinfo=UTC)),
        ("90d", datetime(2026, 8, 24, 10, tzinfo=UTC)),
    ],
)
def test_a_range_ends_now_and_begins_with_a_whole_hour(word: str, start: datetime) -> None:
    filter = read(f"range={word}")
    assert (filter.start, filter.end, filter.until) == (start, NOW, None)


def test_without_bounds_the_default_holds_and_only_then() -> None:
    assert read("").start is None
    assert read("", default_range="24h") == read("range=24h")
    assert read("range=7d", default_range="24h") == read("range=7d")
    assert read("to=2026-11-01", default_range="24h").range == ""


def test_a_relative_range_moves_on_and_stays_the_same_filter() -> None:
    filter = read("range=24h&tag=a")
    later = filter.at(NOW + timedelta(hours=2))
    assert later.start == datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert later == filter
    assert hash(later) == hash(filter)


@pytest.mark.parametrize(
    ("query", "start"),
    [
        ("from=2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("from=2026-11-01&tz=Asia/Kolkata", datetime(2026, 10, 31, 18, 30, tzinfo=UTC)),
        ("from=2026-11-01T10:00Z&tz=Asia/Kolkata", datetime(2026, 11, 1, 10, tzinfo=UTC)),
        ("from=2026-11-01T10:00:00.5%2B02:00", datetime(2026, 11, 1, 8, 0, 0, 500_000, tzinfo=UTC)),
        ("from=2026-11-01T10:00:00+02:00", datetime(2026, 11, 1, 8, tzinfo=UTC)),
        ("from=2026-11-01+10:00", datetime(2026, 11, 1, 10, tzinfo=UTC)),
    ],
)
def test_from_is_read_in_the_zone_of_the_filter(query: str, start: datetime) -> None:
    assert read(query).start == start


# --- As a value ----------------------------------------------------------------------------


def test_what_says_the_same_is_equal() -> None:
    one = read("tag=b&tag=a&tag=a&location=x&from=2026-11-01T02:00%2B02:00")
    other = read("location=x&tag=a&from=2026-11-01&tag=b")
    assert one == other
    assert len({one, other}) == 1
    assert one != read("tag=a")


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@given(st.lists(st.tuples(st.sampled_from(["tag", "step", "q", "domain", "location"]), TEXTS)))
def test_the_canonical_string_reads_back_as_the_same_filter(params: list[tuple[str, str]]) -> None:
    try:
        filter = parse([*params, ("range", "7d"), ("tz", "Asia/Kolkata")], now=NOW)
    except FilterError:
        return
    again = read(filter.canonical())
    assert again.terms == filter.terms
    assert again.canonical() == filter.canonical()


def test_links_narrow_widen_and_drop() -> None:
    filter = read("tag=a&tag=-z&range=24h")
    assert filter.with_("tag", "b") == read("tag=b&tag=-z&range=24h")
    assert filter.with_("tag", "-b") == read("tag=\\-b&tag=-z&range=24h")
    assert filter.with_("tag", "b", excluded=True) == read("tag=a&tag=-b&tag=-z&range=24h")
    assert filter.without("tag") == read("range=24h")
    assert filter.without("tag", "z") == read("tag=a&range=24h")
    assert filter.with_("range", "7d") == read("tag=a&tag=-z&range=7d")
    assert filter.with_("from", "2026-11-01").range == ""
    assert filter.with_("tz", "Asia/Kolkata").without("range") == read(
        "tag=a&tag=-z&tz=Asia/Kolkata"
    )
    with pytest.raises(FilterError):
        filter.with_("is", "happy")


def test_chips_lead_to_the_filter_without_them() -> None:
    chips = read("tag=a&tag=-z&range=24h").chips()
    assert [(chip.term.text, chip.without) for chip in chips] == [
        ("a", "tag=-z&range=24h"),
        ("-z", "tag=a&range=24h"),
    ]


# --- Locations -----------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_location_that_is_missing_or_hidden_is_refused_alike() -> None:
    mine, hidden = rows.location("mine"), rows.location("hidden")
    rights = Rights(location_ids=frozenset({mine.pk}))
    read("location=mine").check_locations(rights)
    read("location=hidden").check_locations(EVERYTHING)
    for query in ("location=hidden", "location=nowhere", "location=-hidden", "location=(none)"):
        with pytest.raises(Http404, match=r"^There is no such location\.$"):
            read(query).check_locations(rights)
    assert read("location=mine").location_ids(rights) == {mine.pk}
    assert read("location=-mine").location_ids(EVERYTHING) == {hidden.pk}
    assert read("tag=a").location_ids(EVERYTHING) is None


@pytest.mark.django_db
def test_a_company_narrows_to_its_locations_that_may_be_seen() -> None:
    a, b = rows.location("a", company="acme"), rows.location("b", company="acme")
    rows.location("c")
    assert read("company=acme").location_ids(EVERYTHING) == {a.pk, b.pk}
    assert read("company=acme").location_ids(Rights(location_ids=frozenset({b.pk}))) == {b.pk}
    assert read("company=nobody").location_ids(EVERYTHING) == frozenset()


# --- Tables and rows agree -----------------------------------------------------------------

WAYS = {
    "ip": ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
    "pool": ["p1", "p2", "p3"],
    "mx": ["mx1.example", "mx2.example"],
}
SOME = {
    "location": ["a", "b", "c"],
    "company": ["acme", "(none)", "nobody"],
    "tag": ["t1", "t2", "t3", "(none)", "(other)", "absent"],
    "campaign": ["workflow:w1", "w1", "x", "(none)", "(other)", "bulk:w1", "w"],
    "step": ["s1", "(none)", "(other)"],
    "provider": ["Gmail", "gmail", "(none)", "(other)"],
    "domain": ["one.example", "TWO.example", "(none)", "(other)"],
    "sending_domain": ["mg.example", "(none)"],
    **{name: [*values, "(none)", "(other)", "absent"] for name, values in WAYS.items()},
    "outcome": [o.word for o in Outcome],
    "class": ["hard", "soft", "block", "suppressed", "undetermined", "(none)"],
    "category": ["policy", "mailbox_full", "(none)"],
    "code": ["550", "421", "(none)"],
    "reason": ["R1", "R2", "(none)"],
    "is": [str(flag.name).lower() for flag in Flag],
    "q": ["ann", "ANN@one.example", "@one.example", "<M1@mail>", "m1@mail", "a%", "a_n", "@none"],
}
# Location b came upon these too late to count them apart.
CAPPED = ("t3", "T1", "x", "s1", "two.example", "192.0.2.3", "p2", "p3")
RECIPIENTS = ["ann@one.example", "annie@two.example", "a_n@one.example", "a%b@two.example", "bob"]


def ways(dimension: Dimension) -> st.SearchStrategy[dict[str, object]]:
    """Where a delivery was decided, what tried too, and where temporary failures came from."""
    values = st.sampled_from(["", *WAYS[dimension.word]])
    some = st.sets(st.sampled_from(WAYS[dimension.word]), max_size=2)
    return st.builds(
        lambda decided, tried, deferring: {
            dimension.word: decided,
            "tried": [(dimension, way) for way in sorted(tried - {decided})],
            # Nothing is said where they came from where it was decided only.
            "deferred_at": [(dimension, way) for way in sorted(deferring & {*tried, decided})]
            if deferring & tried - {decided}
            else [],
        },
        values,
        some,
        some,
    )


def joined(parts: tuple[dict[str, Any], ...]) -> dict[str, object]:
    """Columns put together; lists of the same name one after another."""
    whole: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            whole[name] = (
                whole[name] + value if name in ("tried", "deferred_at") & whole.keys() else value
            )
    return whole


deliveries = st.tuples(
    st.fixed_dictionaries(
        {
            "location_ref": st.sampled_from(["a", "b", "c"]),
            "recipient": st.sampled_from(RECIPIENTS),
            "message_id": st.sampled_from(["M1@mail", "m1@mail", "ann"]),
            "tags": st.sets(st.sampled_from(["t1", "t2", "t3", "T1"])).map(tuple),
            "campaign": st.sampled_from(
                ["", "workflow:w1", "bulk:w1", "x", "workflow:W1", "a:b:w1"]
            ),
            "step": st.sampled_from(["", "s1"]),
            "provider": st.sampled_from(["", "Gmail"]),
            "sending_domain": st.sampled_from(["", "mg.example"]),
            "outcome": st.sampled_from(Outcome),
            "flags": st.integers(0, sum(Flag)),
            "bounce_class": st.sampled_from(BounceClass),
            "category": st.sampled_from([Category.NONE, Category.POLICY, Category.MAILBOX_FULL]),
            "deferred_as": st.sets(st.sampled_from([Category.POLICY, Category.MAILBOX_FULL])),
            "code": st.sampled_from([None, 550, 421]),
            "reason": st.sampled_from([None, "R1", "R2"]),
            "sent_at": st.sampled_from([NOW - timedelta(minutes=m) for m in (0, 59, 60, 61, 3000)]),
        }
    ),
    *(ways(dimension) for dimension in LETTERS),
).map(joined)
terms = st.sampled_from(sorted(SOME)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        st.tuples(st.sampled_from(["", "-"]), st.sampled_from(SOME[name])).map("".join),
    )
)
# What is said of an attempt is said together: these alone would be drawn too seldom.
at_attempts = st.tuples(
    st.sampled_from(
        ["ip=192.0.2.1", "ip=192.0.2.3&pool=p1", "pool=(other)", "mx=(none)&ip=-192.0.2.2"]
    ),
    st.sampled_from(
        ["outcome=moved", "outcome=-moved", "is=deferred", "is=deferred&is=opened", "is=-deferred",
         "outcome=delivered&outcome=bounced&outcome=deferred&outcome=accepted", "outcome=deferred",
         "outcome=moved&outcome=bounced", "class=block", "category=policy", "code=-550",
         "category=policy&is=deferred", "category=policy&is=deferred&class=hard"]
    ),
).map(lambda pair: parse_qsl("&".join(pair)))  # fmt: skip
bounds = st.sampled_from(
    [[], [("range", "1h")], [("range", "24h")], [("from", "2026-11-22T09:31Z")],
     [("to", "2026-11-22T10:30Z")], [("from", "2026-11-22"), ("to", "2026-11-22T09:30Z")],
     [("range", "1h"), ("clock", "sent")], [("range", "1h"), ("clock", "event")],
     [("from", "2026-11-22T10:30"), ("tz", "Asia/Kolkata")]]
)  # fmt: skip


def write(number: int, columns: dict[str, Any]) -> None:
    """Store a delivery with one event, which tells of the same."""
    reason = columns["reason"] and rows.reason(columns["reason"])
    capped = CAPPED if columns["location_ref"] == "b" else ()
    of = rows.delivery(number, **{**columns, "reason": reason}, capped=capped)
    way = Detail(ip=columns["ip"], pool=columns["pool"], mx=columns["mx"])
    rows.event(
        of, detail=way, reason=reason, code=columns["code"], category=columns["category"],
        bounce_class=columns["bounce_class"], provider=columns["provider"],
    )  # fmt: skip


@pytest.mark.django_db
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        deliveries,
        max_size=6,
        unique_by=lambda d: (d["message_id"], d["recipient"], d["location_ref"]),
    ),
    st.lists(
        st.tuples(st.one_of(st.lists(terms, max_size=4), at_attempts), bounds),
        min_size=1,
        max_size=8,
    ),
)
def test_tables_and_rows_agree(
    stored: list[dict[str, Any]],
    asked: list[tuple[list[tuple[str, str]], list[tuple[str, str]]]],
) -> None:
    for model in (Event, Delivery, CountedValue, CountedValues, Value, Location):
        model.objects.all().delete()
    rows.location("a", company="acme")
    for number, columns in enumerate(stored):
        write(number, columns)
    reasons = {name: str(rows.reason(name).pk) for name in ("R1", "R2")}
    events = event_rows(after=0, limit=100)
    for params, times in asked:
        named = [
            (n, re.sub("R[12]", lambda m: reasons[m[0]], v)) for n, v in params if n == "reason"
        ]
        filter = parse([*(p for p in params if p[0] != "reason"), *named, *times], now=NOW)
        kept = {row.delivery_id for row in events if filter.matches(row)}
        assert set(filter.apply(Delivery.objects.all()).values_list("pk", flat=True)) == kept
        joined = Event.objects.filter(*filter.conditions("delivery__"), filter.event_bounds())
        if filter.clock != "sent":
            assert set(joined.values_list("delivery_id", flat=True)) == kept


A, B = (Dimension.IP, "192.0.2.1"), (Dimension.IP, "192.0.2.2")


@pytest.fixture
def tried() -> dict[int, int]:
    """Six deliveries through two IPs: their numbers by their keys."""
    a, b, put_off = A[1], B[1], Flag.DEFERRED
    bounced: dict[str, Any] = {"outcome": Outcome.BOUNCED, "bounce_class": BounceClass.BLOCK}
    made = [
        rows.delivery(1, ip=a, flags=Flag.REACHED),
        rows.delivery(2, ip=b, tried=[A], deferred_at=[A], flags=put_off | Flag.REACHED),
        rows.delivery(3, ip=a, tried=[B], deferred_at=[B], flags=put_off, code=550, **bounced),
        rows.delivery(4, ip=a, flags=put_off, outcome=Outcome.DEFERRED),
        rows.delivery(5, ip=b),
        rows.delivery(6, ip=b, tried=[A], outcome=Outcome.TEST),
    ]
    for delivery in made:
        rows.event(delivery, detail=Detail(ip=delivery.ip.text))
    return {delivery.pk: number for number, delivery in enumerate(made, 1)}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("ip=A", {1, 2, 3, 4, 6}),
        ("ip=A&ip=B", {1, 2, 3, 4, 5, 6}),
        ("ip=-A", {5}),
        ("ip=A&ip=-B", {1, 4}),
        ("ip=A&outcome=delivered", {1}),
        ("ip=A&outcome=bounced", {3}),
        ("ip=A&outcome=moved", {2}),
        ("ip=B&outcome=moved", {3}),
        ("ip=A&outcome=moved&outcome=bounced", {2, 3}),
        ("ip=A&outcome=test", set()),
        ("ip=B&outcome=test", {6}),
        ("ip=A&outcome=-moved", {1, 3, 4, 6}),
        ("ip=A&outcome=-delivered", {2, 3, 4, 6}),
        ("ip=A&outcome=deferred&outcome=accepted", {4}),
        ("ip=A&outcome=delivered&outcome=bounced&outcome=deferred&outcome=accepted", {1, 2, 3, 4}),
        ("ip=A&is=deferred", {2, 4}),
        ("ip=B&is=deferred", {3}),
        ("ip=A&is=-deferred", {1, 3, 6}),
        ("ip=A&is=reached", {1}),
        ("ip=A&is=reached&is=deferred", {1, 2, 4}),
        ("ip=A&class=block&code=550", {3}),
        ("ip=B&class=block", set()),
        ("ip=A&mx=(none)&outcome=delivered", {1}),
        ("is=deferred", {2, 3, 4}),
    ],
)
def test_what_is_said_beside_an_ip_was_decided_there(
    tried: dict[int, int], query: str, numbers: set[int]
) -> None:
    query = query.replace("=A", f"={A[1]}").replace("=B", f"={B[1]}")
    query = query.replace("-A", f"-{A[1]}").replace("-B", f"-{B[1]}")
    assert {tried[pk] for pk in kept(query)} == numbers
    events = event_rows(after=0, limit=10)
    assert {tried[row.delivery_id or 0] for row in events if read(query).matches(row)} == numbers


@pytest.mark.django_db
def test_where_a_delivery_was_decided_and_put_off_can_be_asked_for(tried: dict[int, int]) -> None:
    filter = read(f"ip={A[1]}")
    assert filter.there() == {Dimension.IP: {rows.value(*A).pk}}
    asked = filter.apply(Delivery.objects.all())
    assert {tried[d.pk] for d in asked.filter(filter.decided_there())} == {1, 3, 4}
    put_off = asked.filter(filter.deferred_there(), *read("is=deferred").conditions())
    assert {tried[d.pk] for d in put_off} == {2, 4}
    assert read("ip=-192.0.2.1").there() == {}
    assert Delivery.objects.filter(read("").decided_there()).count() == 6


@pytest.mark.django_db
def test_a_category_beside_deferred_alone_is_that_of_the_temporary_failures() -> None:
    full, grey = Category.MAILBOX_FULL, Category.GREYLISTED
    put_off: dict[str, Any] = {"flags": Flag.DEFERRED}
    one = rows.delivery(1, deferred_as=[grey], **put_off)
    two = rows.delivery(2, outcome=Outcome.BOUNCED, category=full, deferred_as=[grey], **put_off)
    three = rows.delivery(3, outcome=Outcome.BOUNCED, category=full, deferred_as=[full], **put_off)
    assert kept("category=mailbox_full") == {two.pk, three.pk}
    assert kept("category=mailbox_full&is=deferred") == {three.pk}
    assert kept("category=greylisted&is=deferred") == {one.pk, two.pk}
    assert kept("category=greylisted&is=deferred&is=-late") == {one.pk, two.pk}
    assert kept("category=greylisted&is=deferred&outcome=bounced") == set()
    assert kept("category=mailbox_full&is=deferred&class=undetermined") == {two.pk, three.pk}
    assert kept("category=mailbox_full&is=deferred&is=late") == {two.pk, three.pk}
    assert kept("category=-mailbox_full&is=deferred") == {one.pk}


@pytest.mark.django_db
def test_values_that_came_too_late_are_found_together() -> None:
    late = rows.delivery(1, tags=("a", "z"), campaign="c", capped=("z", "c"))
    rows.delivery(2, tags=("a",), campaign="d")
    elsewhere = rows.delivery(3, location_ref="roomy", tags=("z",), campaign="c")
    literal = rows.delivery(4, tags=("(other)",))
    assert kept("tag=(other)") == {late.pk, literal.pk}
    assert kept("campaign=(other)") == {late.pk}
    assert kept("campaign=c") == {late.pk, elsewhere.pk}
    assert late.pk not in kept("tag=-(other)")


@pytest.mark.django_db
def test_a_reason_is_a_deliverys_decisive_one_and_an_events_own() -> None:
    final, passing = rows.reason("final"), rows.reason("passing")
    of = rows.delivery(1, outcome=Outcome.BOUNCED, ip=B[1], tried=[A], reason=final)
    own: dict[str, Any] = {
        "category": Category.GREYLISTED, "bounce_class": BounceClass.SOFT, "code": 451,
        "provider": "Gmail",
    }  # fmt: skip
    rows.event(of, kind=EventKind.DEFERRED, reason=passing, detail=Detail(ip=A[1]), **own)
    rows.event(of, kind=EventKind.BOUNCED, reason=final, detail=Detail(ip=B[1]))
    rows.event(of, kind=EventKind.ACCEPTED)
    events = event_rows(after=0, limit=10)

    def matching(query: str) -> list[str]:
        return [row.kind.word for row in events if read(query).matches(row)]

    assert kept(f"reason={final.pk}") == {of.pk}
    assert kept(f"reason={passing.pk}") == set()
    assert matching(f"reason={passing.pk}") == ["deferred"]
    assert matching("reason=(none)") == ["accepted"]
    # Beside a reason all else is the event's own, too, wherever the delivery ended.
    for said in (f"ip={A[1]}", "class=soft", "category=greylisted", "code=451", "provider=Gmail"):
        assert matching(f"reason={passing.pk}&{said}") == ["deferred"]
        assert matching(f"reason={passing.pk}&{said.replace('=', '=-')}") == []
        assert matching(f"reason={final.pk}&{said}") == []
    assert matching(f"reason={passing.pk}&outcome=bounced&mx=(none)") == ["deferred"]


def test_a_link_that_drops_the_ip_drops_what_moved_from_it() -> None:
    filter = read("ip=192.0.2.1&outcome=moved&tag=a")
    assert filter.without("ip") == read("tag=a")
    assert filter.without("tag") == read("ip=192.0.2.1&outcome=moved")
    assert {chip.without for chip in filter.chips()} == {
        "tag=a",
        "ip=192.0.2.1&tag=a",
        "ip=192.0.2.1&outcome=moved",
    }
    with pytest.raises(FilterError):
        read("tag=a").with_("outcome", "moved")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("workflow:w1", ["workflow:w1"]),
        ("w1", ["bulk:w1", "workflow:w1"]),
        ("W1", ["workflow:W1"]),
        ("b:w1", ["a:b:w1"]),
        ("x", ["x"]),
        ("_1", []),
    ],
)
def test_a_campaign_is_found_by_its_key_or_its_bare_id(wanted: str, found: list[str]) -> None:
    for number, key in enumerate(("workflow:w1", "workflow:W1", "bulk:w1", "a:b:w1", "x", "")):
        rows.event(rows.delivery(number, campaign=key))
    filter = read(f"campaign={wanted}")
    kept = filter.apply(Delivery.objects.all()).values_list("campaign__text", flat=True)
    assert sorted(kept) == found
    matched = (row.campaign for row in event_rows(after=0, limit=10) if filter.matches(row))
    assert sorted(matched) == found


@pytest.mark.django_db
def test_every_range_begins_where_it_says() -> None:
    for word in RANGES:
        start = read(f"range={word}").start
        assert start
        Delivery.objects.all().delete()
        inside = rows.delivery(1, sent_at=start)
        rows.delivery(2, sent_at=start - timedelta(microseconds=1))
        assert list(read(f"range={word}").apply(Delivery.objects.all())) == [inside]


@pytest.mark.django_db
def test_what_is_dated_ahead_of_our_clock_is_not_hidden_by_a_relative_range() -> None:
    ahead = rows.delivery(1, sent_at=NOW + timedelta(minutes=5))
    assert list(read("range=1h").apply(Delivery.objects.all())) == [ahead]
    assert not read("to=2026-11-22T10:30Z").apply(Delivery.objects.all())


@pytest.mark.django_db
def test_the_clock_of_events_keeps_what_something_happened_to() -> None:
    old = rows.delivery(1, sent_at=NOW - timedelta(days=3))
    rows.event(old, occurred_at=NOW - timedelta(days=3))
    rows.event(old, kind=EventKind.COMPLAINED, occurred_at=NOW - timedelta(minutes=5))
    new = rows.delivery(2)
    rows.event(new)
    rows.delivery(3)
    assert kept("range=1h&clock=event") == {old.pk, new.pk}
    assert kept("to=2026-11-22T10:30Z&clock=event") == {old.pk}
    assert kept("from=2026-11-22T16:00&tz=Asia/Kolkata&clock=event") == {new.pk}
    assert len(kept("clock=event")) == 3


@pytest.mark.django_db
def test_an_event_is_filtered_by_its_own_time_or_by_its_sending_when_asked() -> None:
    sent = rows.delivery(1, sent_at=NOW - timedelta(days=3))
    rows.event(sent, occurred_at=NOW)
    (row,) = event_rows(after=0, limit=10)
    assert read("range=1h").matches(row)
    assert not read("range=1h&clock=sent").matches(row)


def test_the_four_classes_of_a_bounce_add_up() -> None:
    words = {class_word(Outcome.BOUNCED, bounce_class) for bounce_class in BounceClass}
    assert words == {"hard", "soft", "block", "undetermined"}
