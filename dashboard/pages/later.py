"""Regions whose numbers take their time: over much mail they are filled in after the first paint.

Without a script their own link asks for them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from dashboard.bounded import within
from dashboard.pages.page import Asked, Region, State, news

WAIT = "wait"  # the page's option: the region that is worth waiting for
AT_FIRST = 0.5  # seconds that the first paint waits for one of these, however quick it should be
LONGEST = 3.0  # … and that it may take afterwards, or for who asks to wait


@dataclass(frozen=True)
class Later(Region):
    """``is_quick`` tells whether it is loaded for the first paint.

    Its partial knows ``state``: "" (loaded), "later", or "long" for what took too long.
    """

    is_quick: Callable[[Asked], bool] = lambda asked: True

    def html(self, asked: Asked) -> str:
        """Its markup, for the first paint."""
        if asked.options.get(WAIT) == self.name:
            return self._html(asked, LONGEST, "long")
        return self._html(asked, AT_FIRST if self.is_quick(asked) else 0.0, "later")

    def changes(self, asked: Asked, state: State) -> str:
        """Its markup with its numbers, if it is not what was sent last."""
        return news(state, self.name, self._html(asked, LONGEST, "long"))

    def _html(self, asked: Asked, longest: float, otherwise: str) -> str:
        found = within(longest, lambda: self.load(asked)) if longest else None
        url = asked.link(asked.own, **{WAIT: self.name}) + f"#{self.name}"
        context = {"state": otherwise if found is None else "", "wait_url": url}
        return self._render(self.template, asked, context | dict(found or {}))
