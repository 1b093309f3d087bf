"""Every address there is, read from the URL configuration, with arguments of one side."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, get_resolver, reverse

from tests.security.world import Side

# Whose key ``pk`` is, by the name of the address.
OF = {
    "dashboard:lift": "suspension",
    "dashboard:revoke-link": "clientlink",
    "dashboard:reason": "reason",
    "dashboard:api-reason": "reason",
    "dashboard:manage-person": "user",
    "dashboard:remove-membership": "membership",
    "dashboard:revoke-invitation": "invitation",
    "dashboard:revoke-token": "apitoken",
    "dashboard:delete-note": "note",
    "dashboard:change-view": "savedview",
    "dashboard:release": "suppressed",
    "dashboard:delivery": "delivery",
    "dashboard:assign": "delivery",
    "dashboard:api-delivery": "delivery",
    "admin:ingest_delivery_act": "delivery",
    "admin:dashboard_bulkchange_begin": "reason",
    "admin:dashboard_bulkchange_undo": "bulkchange",
    "admin:dashboard_reviewcase_answer": "reviewcase",
}
NOWHERE = "999999999"  # the key of nothing


@dataclass(frozen=True)
class Address:
    """A pattern of the URL configuration: its full name, and the names of its arguments."""

    name: str
    route: str
    arguments: tuple[str, ...]

    @property
    def model(self) -> str:
        """The model of an admin page, such as ``ingest_location``; "" for any other."""
        found = re.fullmatch(
            r"admin:([a-z]+_[a-z]+)_(changelist|add|history|delete|change)", self.name
        )
        return found[1] if found else ""

    @property
    def kind(self) -> str:
        """The kind of an admin page of a model."""
        return self.name.rpartition("_")[2]

    def path(self, side: Side) -> str:
        """The address of what one side has."""
        return self._path(lambda name: _argument(self, name, side))

    def path_of_nothing(self, side: Side) -> str:
        """The same, of what nobody has."""
        return self._path(lambda name: _strange(name, _argument(self, name, side)))

    def _path(self, value: Any) -> str:
        if self.name == "admin:catch-all":
            return "/admin/nothing/"
        if self.name == "admin:old":
            return self.route.replace("<path:object_id>", value("object_id"))
        return reverse(self.name, kwargs={name: value(name) for name in self.arguments})


def _argument(address: Address, name: str, side: Side) -> str:
    fixed = {
        "ref": side.ref, "key": side.campaign, "app_label": "ingest", "content_type_id": "1",
        "uidb36": "1", "id": str(side.pks["user"]),
    }  # fmt: skip
    if address.name == "account_reset_password_from_key" and name == "key":
        return "set-password"
    if name in fixed:
        return fixed[name]
    if name == "token":
        return str(side.pks["token"])
    if name == "object_id":
        model = (address.model or address.route.rstrip("/").rpartition("/<")[0]).split("_")[-1]
        return str(side.pks.get(model.rpartition("/")[2], 1))
    return str(side.pks[OF[address.name]])


def _strange(name: str, argument: str) -> str:
    return NOWHERE if argument.isdecimal() else "nothing" if name != "token" else "x.y"


def addresses() -> Iterator[Address]:
    """All of them."""
    yield from _addresses(get_resolver().url_patterns)


def _addresses(patterns: Any, before: str = "/", space: str = "") -> Iterator[Address]:
    for pattern in patterns:
        route = before + str(pattern.pattern)
        if not isinstance(pattern, URLPattern):
            inner = f"{space}{pattern.namespace}:" if pattern.namespace else space
            yield from _addresses(pattern.url_patterns, route, inner)
            continue
        name = pattern.name or ("old" if "object_id" in route else "catch-all")
        yield Address(space + name, route, tuple(pattern.pattern.regex.groupindex))
