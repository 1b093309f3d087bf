"""Text as it is sought while somebody types: in lower case, in an order that an index can hold."""

from typing import Any

from django.db.models import CharField, Transform
from django.utils.deconstruct import deconstructible


@deconstructible(path="ingest.folded.Folded")
class Folded(Transform):
    """A text in lower case, ordered by code points.

    The database's own collation may order otherwise, and then no index finds what begins so.
    """

    function = "LOWER"
    output_field = CharField()

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        """In the order of SQLite's own."""
        template = '(%(function)s(%(expressions)s) COLLATE "C")'
        return self.as_sql(compiler, connection, template=template, **extra)
