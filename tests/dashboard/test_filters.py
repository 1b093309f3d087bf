"""The filters' grammar, and that what is asked of the tables agrees with what is asked of rows."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import pytest
from django.http import Http404
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dashboard.access import Rights
from dashboard.filters import RANGES, TERM_NAMES, Filter, FilterError, Term, class_word, parse
from dashboard.queries import event_rows
from ingest.models import Delivery, Event, Location, Value
from ingest.vocabulary import BounceClass, Category, Flag, Outcome
from tests.dashboard import rows
from tests.dashboard.rows import NOW

EVERYTHING = Rights(everything=True)


def read(query: str, **options: object) -> Filter:
    return parse(parse_qsl(query, keep_blank_values=True), now=NOW, **options)  # type: ignore[arg-type]


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
        ("reason=12", "The filter reason is not available yet."),
        ("ip=192.0.2.1", "The filter ip is not available yet."),
        ("pool=x", "The filter pool is not available yet."),
        ("mx=x", "The filter mx is not available yet."),
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
        "tz=UTC&tz=UTC", "from=2026-01-01&from=2026-01-02", "q=<>",
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

SOME = {
    "location": ["a", "b", "c"],
    "company": ["acme", "(none)", "nobody"],
    "tag": ["t1", "t2", "t3", "(none)", "absent"],
    "campaign": ["workflow:w1", "w1", "x", "(none)", "bulk:w1", "w"],
    "step": ["s1", "(none)"],
    "provider": ["Gmail", "gmail", "(none)"],
    "domain": ["one.example", "TWO.example", "(none)"],
    "sending_domain": ["mg.example", "(none)"],
    "outcome": [o.word for o in Outcome],
    "class": ["hard", "soft", "block", "suppressed", "undetermined", "(none)"],
    "category": ["policy", "mailbox_full", "(none)"],
    "code": ["550", "421", "(none)"],
    "is": [str(flag.name).lower() for flag in Flag],
    "q": ["ann", "ANN@one.example", "@one.example", "<M1@mail>", "m1@mail", "a%", "a_n", "@none"],
}
RECIPIENTS = ["ann@one.example", "annie@two.example", "a_n@one.example", "a%b@two.example", "bob"]
deliveries = st.fixed_dictionaries(
    {
        "location_ref": st.sampled_from(["a", "b", "c"]),
        "recipient": st.sampled_from(RECIPIENTS),
        "message_id": st.sampled_from(["M1@mail", "m1@mail", "ann"]),
        "tags": st.sets(st.sampled_from(["t1", "t2", "t3", "T1"])).map(tuple),
        "campaign": st.sampled_from(["", "workflow:w1", "bulk:w1", "x", "workflow:W1", "a:b:w1"]),
        "step": st.sampled_from(["", "s1"]),
        "provider": st.sampled_from(["", "Gmail"]),
        "sending_domain": st.sampled_from(["", "mg.example"]),
        "outcome": st.sampled_from(Outcome),
        "flags": st.integers(0, sum(Flag)),
        "bounce_class": st.sampled_from(BounceClass),
        "category": st.sampled_from([Category.NONE, Category.POLICY, Category.MAILBOX_FULL]),
        "code": st.sampled_from([None, 550, 421]),
        "sent_at": st.sampled_from([NOW - timedelta(minutes=m) for m in (0, 59, 60, 61, 3000)]),
    }
)
terms = st.sampled_from(sorted(SOME)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        st.tuples(st.sampled_from(["", "-"]), st.sampled_from(SOME[name])).map("".join),
    )
)
bounds = st.sampled_from(
    [[], [("range", "1h")], [("range", "24h")], [("from", "2026-11-22T09:31Z")],
     [("to", "2026-11-22T10:30Z")], [("from", "2026-11-22"), ("to", "2026-11-22T09:30Z")],
     [("range", "1h"), ("clock", "sent")]]
)  # fmt: skip


@pytest.mark.django_db
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(deliveries, max_size=6),
    st.lists(st.tuples(st.lists(terms, max_size=4), bounds), min_size=1, max_size=8),
)
def test_tables_and_rows_agree(
    stored: list[dict[str, object]],
    asked: list[tuple[list[tuple[str, str]], list[tuple[str, str]]]],
) -> None:
    for model in (Event, Delivery, Value, Location):
        model.objects.all().delete()
    rows.location("a", company="acme")
    last = 0
    for number, columns in enumerate(stored):
        key = {**columns, "message_id": columns["message_id"]}
        if Delivery.objects.filter(
            message_id=key["message_id"],
            recipient=key["recipient"],
            location__ref=key["location_ref"],
        ).exists():
            continue
        last = rows.event(rows.delivery(number, **key)).pk  # type: ignore[arg-type]
    events = event_rows(after=0, until=last, limit=100)
    for params, times in asked:
        filter = parse([*params, *times], now=NOW)
        kept = {row.delivery_id for row in events if filter.matches(row)}
        assert set(filter.apply(Delivery.objects.all()).values_list("pk", flat=True)) == kept


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
def test_the_event_clock_is_refused_for_deliveries() -> None:
    with pytest.raises(FilterError):
        read("clock=event").apply(Delivery.objects.all())


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
