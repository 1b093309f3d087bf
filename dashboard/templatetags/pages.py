"""The regions of a page, where its template wants them."""

from typing import Any

from django import template
from django.utils.safestring import SafeString, mark_safe

from dashboard.pages.page import Page

register = template.Library()


@register.simple_tag(takes_context=True)
def region(context: dict[str, Any], name: str) -> SafeString:
    """``{% region "totals" %}``: the region of this name, as it is now."""
    page: Page = context["page"]
    html = page.region(name).html(context["asked"])
    return mark_safe(html)  # noqa: S308 - rendered by a template, which has escaped it
