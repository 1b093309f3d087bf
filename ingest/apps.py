from django.apps import AppConfig


class IngestConfig(AppConfig):
    """Webhooks in: verify, normalize, record, publish."""

    name = "ingest"
