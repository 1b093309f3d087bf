"""Pages, API, accounts and health. Webhooks and sockets are routed in ``config.asgi``."""

from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path

from dashboard import api

accounts = [
    path("login/", auth.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("password/", auth.PasswordChangeView.as_view(), name="password_change"),
    path("password/done/", auth.PasswordChangeDoneView.as_view(), name="password_change_done"),
]

urlpatterns = [
    path("", include("dashboard.urls")),
    *accounts,
    path("admin/", admin.site.urls),
    path("healthz", api.healthz, name="healthz"),
    path("readyz", api.readyz, name="readyz"),
]
