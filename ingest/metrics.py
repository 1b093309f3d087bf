"""What is counted about the receiving itself, for ``/metrics`` and the status page."""

from prometheus_client import Counter, Histogram

WEBHOOKS = Counter(
    "sendwatch_webhooks", "Webhooks by answer.", ["status"]
)  # the edge's answers: a closed set
BATCH_SIZE = Histogram(
    "sendwatch_batch_webhooks",
    "Webhooks that one transaction took.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
CONFLICTS = Counter(
    "sendwatch_conflicting_duplicates", "Duplicates by their key whose content differs."
)
