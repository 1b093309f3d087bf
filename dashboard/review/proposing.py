"""A rule of one's own from a reply: the form, filled in with what the reply tells."""

import re
from urllib.parse import urlencode

from django.urls import reverse

from ingest import details
from ingest.models import Event, Reason
from ingest.operator_rules import SHORTEST
from ingest.vocabulary import FAILURES

# What a fingerprint puts in the place of what varies, and the codes in front of the words.
_VARYING = re.compile(r"‹[^›]*›")
_CODES = re.compile(r"^\s*(?:[245]\d\d\b|[245]\.\d{1,3}\.\d{1,3}\b|[\s:·|-])+")
_LONGEST = 120


def phrase_of(fingerprint: str) -> str:
    """The longest part of a refusal in which nothing varies; "" where all of it does."""
    parts = (_CODES.sub("", part) for part in _VARYING.split(fingerprint))
    trimmed = (part.strip(" .,:;()[]<>\"'") for part in parts)
    longest = max(trimmed, key=len, default="")[:_LONGEST].strip()
    return longest if len(re.sub(r"[\W\d_]", "", longest)) >= SHORTEST else ""


def rule_url(reason: Reason) -> str:
    """The address of the form for a rule that catches a refusal."""
    filled: dict[str, object] = {
        "name": f"refusal-{reason.pk}",
        "text": phrase_of(reason.text),
        "note": "",
    }
    event = (
        Event.objects.filter(reason=reason, kind__in=FAILURES)
        .select_related("provider")
        .order_by("-id")
        .first()
    )
    if event is not None:
        detail = details.load(event.detail, event.code, event.is_test, "", "", "")
        filled |= {"code": event.code or "", "enhanced": detail.enhanced}
        # The words suffice for a rule of its own; without any, the provider keeps it narrow.
        if not filled["text"]:
            filled["provider"] = event.provider.text
    query = urlencode({name: value for name, value in filled.items() if value})
    return f"{reverse('admin:ingest_classificationrule_add')}?{query}"
