"""Pages. The webhooks and sockets are routed in ``config.asgi``."""

from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
