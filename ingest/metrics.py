"""What is counted about the receiving itself, for ``/metrics`` and the status page.

With several processes, set PROMETHEUS_MULTIPROC_DIR (an empty folder) to see their sum.
"""

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

# Labels are the edge's answers: a closed set.
WEBHOOKS = Counter("sendwatch_webhooks", "Webhooks by answer.", ["status"])
CONFLICTS = Counter(
    "sendwatch_conflicting_duplicates", "Duplicates by their key whose content differs."
)
BATCH_SIZE = Histogram(
    "sendwatch_batch_webhooks",
    "Webhooks that one transaction took.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
WAITING = Gauge(
    "sendwatch_waiting_webhooks",
    "Webhooks that wait for their commit.",
    multiprocess_mode="livesum",
)


def exposition() -> tuple[bytes, str]:
    """All metrics in Prometheus's text format, and its content type."""
    registry = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
