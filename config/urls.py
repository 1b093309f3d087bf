"""Pages, API, accounts and health. Webhooks and sockets are routed in ``config.asgi``."""

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.templatetags.static import static
from django.urls import include, path
from django.utils.functional import lazy
from django.views.generic import RedirectView

from dashboard import api

# Asked for by browsers on pages that name no icon of their own: the admin's.
favicon = login_not_required(RedirectView.as_view(url=lazy(static, str)("icons/favicon.svg")))

urlpatterns = [
    path("", include("dashboard.urls")),
    path("", include("dashboard.people.urls")),
    path("admin/", admin.site.urls),
    path("healthz", api.healthz, name="healthz"),
    path("readyz", api.readyz, name="readyz"),
    path("metrics", api.metrics, name="metrics"),
    path("favicon.ico", favicon, name="favicon"),
]
