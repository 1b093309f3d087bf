"""The header: errors are rendered beside the request, and ask the database for nothing."""

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db.backends.signals import connection_created
from django.test import AsyncClient, Client

pytestmark = pytest.mark.django_db


@async_to_sync
async def get(path: str, user: User) -> int:
    client = AsyncClient()
    await client.aforce_login(user)
    return (await client.get(path)).status_code


@pytest.mark.parametrize("path", ["/no/such/page/", "/locations/nowhere/", "/?range=2h"])
def test_an_error_opens_no_connection(path: str) -> None:
    vera, made = User.objects.create_user("vera"), []

    def note(connection: Any, **kwargs: Any) -> None:
        made.append(connection)

    connection_created.connect(note)
    try:
        assert get(path, vera) in (400, 404)
    finally:
        connection_created.disconnect(note)
        for connection in made:
            connection.close()
    assert made == []


def test_staff_find_the_admin_and_people(client: Client) -> None:
    client.force_login(User.objects.create_user("boss", is_staff=True))
    html = client.get("/status/").text
    assert 'href="/admin/"' in html and 'href="/people/"' in html
    assert 'href="/admin/"' not in client.get("/no/such/page/").text
