from django.apps import AppConfig
from django.core import checks


class IngestConfig(AppConfig):
    """Webhooks in: verify, normalize, record, publish."""

    name = "ingest"

    def ready(self) -> None:
        """Register the checks of the settings."""
        from ingest.checks import check_settings

        checks.register(check_settings)
