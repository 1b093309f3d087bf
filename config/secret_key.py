"""The secret key of an embedded run: made once, kept beside the database."""

import secrets
from pathlib import Path


def kept_secret_key(data_dir: Path, *, allowed: bool) -> str:
    """The key kept in ``data_dir``, made at first use. ``""`` where it must come from outside.

    Only the embedded run may make its own: several processes on several machines must share
    one, and an empty key makes Django refuse to start with a clear error.
    """
    if not allowed:
        return ""
    path = data_dir / "secret_key"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x") as file:
                path.chmod(0o600)
                file.write(secrets.token_urlsafe(50))
        except FileExistsError:
            pass  # another process was first
    return path.read_text()
