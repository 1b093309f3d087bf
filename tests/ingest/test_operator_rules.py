"""Operators' own rules: they decide first, a broken one costs nothing, and a preview is honest."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import orjson
import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from ingest import operator_rules
from ingest.classify import BUILT_IN, RuleError, classify_failure
from ingest.ids import ids
from ingest.models import ClassificationRule, Delivery, Event
from ingest.normalize import Detail
from ingest.operator_rules import current, preview, read_rule
from ingest.record import item_from_body, write_batch
from ingest.vocabulary import BounceClass, Category, EventKind

pytestmark = pytest.mark.django_db
RULES = "/admin/ingest/classificationrule/"
NOW = 1_790_000_100_000_000

type Queries = Callable[[int], AbstractContextManager[object]]


@pytest.fixture(autouse=True)
def _know_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(operator_rules, "REFRESH", 0.0)
    ids.clear()
    current.clear()
    yield
    ids.clear()
    current.clear()


def rule(text: str = "", category: Category = Category.POLICY, **fields: Any) -> ClassificationRule:
    """A stored rule; its name is made from its text."""
    fields = {"name": f"rule-{ClassificationRule.objects.count()}", "text": text} | fields
    return ClassificationRule.objects.create(category=category, **fields)


def refusal(message: str, **fields: Any) -> Detail:
    return Detail(message=message, code=fields.pop("code", 550), **fields)


def category_of(message: str, provider: str = "", **fields: Any) -> Category:
    """What the rules of this moment make of a permanent failure."""
    found = classify_failure(EventKind.BOUNCED, refusal(message, **fields), provider, current())
    return found.category


def refuse(message: str, at: int = 0, *, mx: str = "mx.example.org") -> None:
    """Record a webhook of a bounce."""
    mail = {
        "event": "failed",
        "severity": "permanent",
        "id": f"e{at}",
        "timestamp": 1_790_000_000 + at,
        "recipient": f"jane{at}@example.org",
        "message": {"headers": {"message-id": f"m{at}@example.com"}},
        "delivery-status": {"code": 550, "message": message, "mx-host": mx},
    }
    body = {"type": "LCEmailStats", "locationId": "locA", "webhookPayload": mail}
    write_batch([item_from_body(orjson.dumps(body), received_at=NOW)], now=NOW)


# --- What a rule says ---------------------------------------------------------------------------


def test_without_rows_the_built_in_rules_decide() -> None:
    assert current() is BUILT_IN


def test_an_own_rule_decides_before_the_built_in_ones() -> None:
    message = "550 5.1.1 user unknown, see our green list"
    assert category_of(message) is Category.INVALID_RECIPIENT
    rule("green list", Category.POLICY)
    assert category_of(message) is Category.POLICY
    assert category_of("550 5.1.1 user unknown") is Category.INVALID_RECIPIENT


def test_what_comes_in_is_classified_by_it() -> None:
    rule("green list", Category.TLS)
    refuse("550 5.1.1 user unknown, see the green list")
    assert Event.objects.get().category == Delivery.objects.get().category == Category.TLS


def test_a_phrase_is_found_whatever_varies_around_and_within_it() -> None:
    rule("Mail from <jane@example.org> at [192.0.2.7] is on the Green List", Category.POLICY)
    assert category_of("mail from <bob@b.com> at [198.51.100.9] is on the green list")
    assert (
        category_of("550 Mail from <x@y.net> at [203.0.113.5] is on the green LIST today")
        is Category.POLICY
    )


def test_a_pattern_stands_between_slashes() -> None:
    rule("/zone (four|five) is closed/", Category.RATE_LIMITED)
    assert category_of("zone five is closed") is Category.RATE_LIMITED
    assert category_of("zone six is closed") is not Category.RATE_LIMITED


def test_all_conditions_must_hold() -> None:
    rule("closed", Category.TLS, provider="Gmail, Yahoo", code=552, enhanced="7.1")
    asked: dict[str, Any] = {"provider": "Yahoo", "code": 552, "enhanced": "5.7.1"}
    assert category_of("closed", **asked) is Category.TLS
    for other in ({"provider": "Outlook"}, {"code": 550}, {"enhanced": "5.7.2"}):
        assert category_of("closed", **(asked | other)) is not Category.TLS


def test_the_lower_position_decides() -> None:
    rule("closed", Category.POLICY, position=20)
    rule("closed", Category.TLS, position=10)
    assert category_of("closed") is Category.TLS


def test_class_scope_and_helper_are_the_categorys_unless_it_names_others() -> None:
    rule("closed", Category.POLICY)
    rule("shut", Category.POLICY, bounce_class=BounceClass.HARD, scope="recipient", fix_by="wait",
         note="They shut for the winter.")  # fmt: skip
    own = BUILT_IN.default(Category.POLICY)
    plain, special = (
        classify_failure(EventKind.BOUNCED, refusal(word), "", current())
        for word in ("closed", "shut")
    )
    assert plain[1:5] == (own.bounce_class, "own-rule-0", own.scope, own.fix_by)
    assert special[1:5] == (BounceClass.HARD, "own-rule-1", "recipient", "wait")
    assert current().explain("own-rule-1").means == "They shut for the winter."


def test_a_rule_that_is_off_is_not_tried() -> None:
    rule("green list", Category.POLICY, enabled=False)
    assert category_of("green list") is not Category.POLICY


def test_a_rule_may_have_the_name_of_a_built_in_one() -> None:
    name = next(iter(BUILT_IN)).id
    rule("green list", Category.POLICY, name=name)
    assert category_of("green list") is Category.POLICY


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "It has no condition."),
        ({"text": "  "}, "It has no condition."),
        ({"text": "ab"}, "The phrase has fewer than 3 letters."),
        ({"text": "/(/"}, "'(' is no pattern: missing ), unterminated subpattern at position 0."),
        ({"text": "/a+/"}, "repeats without a limit"),
        ({"text": "/User unknown/"}, "has a capital letter"),
        ({"text": "/(?=x)y/"}, "looks around or back"),
        ({"text": "/" + "x{0,99}" * 9 + "/"}, "may take long"),
        ({"text": "closed", "scope": "moon"}, "There is no scope 'moon'."),
        ({"text": "closed", "fix_by": "me"}, "There is no fix_by 'me'."),
    ],
)
def test_what_is_wrong_with_a_rule_is_one_sentence(fields: dict[str, Any], sentence: str) -> None:
    row = ClassificationRule(name="mine", category=Category.POLICY, **fields)
    with pytest.raises(RuleError) as caught:
        read_rule(row)
    said = str(caught.value)
    assert sentence in said
    assert said.endswith(".")
    assert "own-mine" not in said


# --- At this moment -----------------------------------------------------------------------------


def test_a_broken_row_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    rule("/(/", Category.TLS, name="broken")
    rule("green list", Category.POLICY)
    with caplog.at_level(logging.WARNING):
        assert category_of("green list") is Category.POLICY
        assert category_of("green list again") is not Category.TLS
    said = [entry.getMessage() for entry in caplog.records]
    assert len(said) == 1  # not once a look
    assert said[0].startswith("the rule broken is left out: '(' is no pattern")


@pytest.mark.parametrize("fields", [None, {"enabled": False}, {"text": "blue list"}])
def test_a_change_is_noticed(fields: dict[str, Any] | None) -> None:
    row = rule("green list", Category.TLS)
    assert category_of("green list") is Category.TLS
    if fields is None:
        row.delete()
    else:
        for name, value in fields.items():
            setattr(row, name, value)
        row.save()
    assert category_of("green list") is not Category.TLS


def test_the_table_is_looked_at_only_now_and_then(
    monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Queries
) -> None:
    monkeypatch.setattr(operator_rules, "REFRESH", 3_600.0)
    current()
    rule("green list", Category.TLS)
    with django_assert_num_queries(0):
        assert category_of("green list") is not Category.TLS
    monkeypatch.setattr(operator_rules, "REFRESH", 0.0)
    with django_assert_num_queries(2):  # whether there is a change, and the rows
        assert category_of("green list") is Category.TLS
    with django_assert_num_queries(1):
        same = current()
    assert same is current()


# --- What a rule would do -----------------------------------------------------------------------


def test_a_preview_counts_what_would_move() -> None:
    for at in range(4):
        refuse("550 5.1.1 user unknown, see the green list" + "!" * at, at)
    refuse("552 5.2.2 mailbox full, see the green list", 10)
    refuse("550 5.1.1 user unknown", 11)
    found = preview(ClassificationRule(name="mine", text="green list", category=Category.POLICY))
    assert (found.looked_at, found.caught) == (6, 5)
    assert found.moves == [("invalid recipient", 4), ("mailbox full", 1)]
    assert found.replies[0] == "552 5.2.2 mailbox full, see the green list"


def test_a_preview_knows_the_place_among_the_others() -> None:
    rule("green", Category.TLS, position=10)
    refuse("on the green list", 1)
    refuse("on the blue list", 2)
    late = ClassificationRule(name="x", text="list", category=Category.POLICY, position=20)
    assert preview(late).caught == 1
    late.position = 5
    assert preview(late).caught == 2


def test_a_preview_of_a_stored_rule_tries_what_is_typed_in() -> None:
    row = rule("green", Category.TLS)
    refuse("on the green list", 1)
    refuse("on the blue list", 2)
    row.text = "blue"
    found = preview(row)
    assert (found.caught, found.replies) == (1, ["on the blue list"])


def test_a_preview_looks_at_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(5):
        refuse("on the green list", at)
    row = ClassificationRule(name="x", text="green", category=Category.POLICY)
    monkeypatch.setattr(operator_rules, "LOOKED_AT", 3)
    assert preview(row).looked_at == 3
    monkeypatch.setattr(operator_rules, "LOOKED_BACK", 2)
    assert preview(row).looked_at == 2


# --- In the admin -------------------------------------------------------------------------------


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("boss"))
    return client


FORM = {
    "name": "green", "position": "50", "enabled": "on", "text": "green list", "provider": "",
    "code": "", "enhanced": "", "category": str(int(Category.POLICY)), "bounce_class": "0",
    "scope": "", "fix_by": "", "note": "",
}  # fmt: skip


def test_a_rule_is_made_in_the_admin(boss: Client) -> None:
    response = boss.post(f"{RULES}add/", FORM)
    assert response.status_code == 302
    row = ClassificationRule.objects.get()
    assert (row.name, row.position, row.text, row.code, row.scope) == (
        "green", 50, "green list", None, "",
    )  # fmt: skip
    assert category_of("green list") is Category.POLICY


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"text": ""}, "It has no condition."),
        ({"text": "/a*b/"}, "repeats without a limit"),
        ({"name": "a b"}, "Enter a valid “slug”"),
        ({"scope": "moon"}, "Select a valid choice"),
    ],
)
def test_what_cannot_be_used_is_not_saved(
    boss: Client, fields: dict[str, str], sentence: str
) -> None:
    response = boss.post(f"{RULES}add/", FORM | fields)
    assert response.status_code == 200
    assert sentence in response.content.decode()
    assert not ClassificationRule.objects.exists()


def test_a_preview_saves_nothing(boss: Client) -> None:
    refuse("550 5.1.1 user unknown on the green list <script>", 1)
    response = boss.post(f"{RULES}add/", FORM | {"_preview": "Preview"})
    page = " ".join(response.content.decode().split())
    assert response.status_code == 200
    assert "Of the newest 1 failure it would catch 1, now classified as" in page
    assert "<li>invalid recipient: 1</li>" in page
    assert "green list &lt;script&gt;" in page
    assert "Please correct" not in page
    assert 'value="green list"' in page
    assert not ClassificationRule.objects.exists()


def test_a_preview_of_a_broken_rule_says_what_is_wrong(boss: Client) -> None:
    response = boss.post(f"{RULES}add/", FORM | {"text": "/(/", "_preview": "Preview"})
    page = response.content.decode()
    assert "is no pattern" in page
    assert "What it would do" not in page


def test_a_stored_rule_shows_what_it_catches(boss: Client) -> None:
    row = rule("green list", Category.POLICY)
    refuse("on the green list", 1)
    page = " ".join(boss.get(f"{RULES}{row.pk}/change/").content.decode().split())
    assert "Of the newest 1 failure it would catch 1" in page


def test_the_page_of_a_rule_that_broke_says_so(boss: Client) -> None:
    row = rule("/(/", Category.POLICY)
    page = boss.get(f"{RULES}{row.pk}/change/").content.decode()
    assert "It is left out: &#x27;(&#x27; is no pattern" in page


def test_the_list_is_in_the_order_of_trying_and_names_what_is_left_out(boss: Client) -> None:
    rule("green list", name="second", position=20)
    rule("/(/", name="first", position=10)
    rule("blue list", name="third", position=30, enabled=False, code=550)
    page = boss.get(RULES).content.decode()
    assert page.index("first") < page.index("second") < page.index("third")
    states = re.findall(r'class="field-state">([^<]*)<', page)
    assert states[0].startswith("left out: &#x27;(&#x27; is no pattern")
    assert states[1:] == ["in use", "off"]
    assert "blue list and 550" in page


def test_who_may_only_look_gets_no_preview_button(client: Client) -> None:
    user = User.objects.create_user("helper", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_classificationrule"))
    client.force_login(user)
    row = rule("green list")
    page = client.get(f"{RULES}{row.pk}/change/").content.decode()
    assert "_preview" not in page
    assert client.post(f"{RULES}{row.pk}/change/", FORM).status_code == 403
