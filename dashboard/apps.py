from django.apps import AppConfig


class DashboardConfig(AppConfig):
    """People watching: pages, API and sockets."""

    name = "dashboard"

    def ready(self) -> None:
        """Note in the audit log what people change about their own accounts."""
        from dashboard.people import own_changes

        own_changes.connect()
