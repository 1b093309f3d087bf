"""A server, somebody who is logged in, and pages whose console must stay silent."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, StorageState

from tests.browser.pages import send, session_of
from tests.serving import Server, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a little mail, which a module's tests share."""
    with running("daphne", "sqlite", tmp_path_factory.mktemp("pages")) as server:
        for kind in ("accepted", "delivered"):
            send(server, kind, location="loc-a", tags=["promo"])
        yield server


@pytest.fixture(scope="module")
def session(server: Server) -> StorageState:
    """The cookies of somebody who is logged in."""
    return session_of(server)


@pytest.fixture
def context(browser: Browser, session: StorageState) -> Iterator[BrowserContext]:
    """A browser of somebody who is logged in."""
    context = browser.new_context(storage_state=session)
    yield context
    context.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the console of the page complained of. What is left at the end fails the test."""
    return []


@pytest.fixture
def tab(context: BrowserContext, complaints: list[str]) -> Iterator[Page]:
    """A page of somebody who is logged in. Whatever its console complains of fails the test."""
    page = context.new_page()
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    page.close()
    assert complaints == []
