from django.apps import AppConfig


class DashboardConfig(AppConfig):
    """People watching: pages, API and sockets."""

    name = "dashboard"
