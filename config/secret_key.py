"""The secret key of an embedded run: made once, kept beside the database."""

import os
import secrets
from pathlib import Path


def kept_secret_key(data_dir: Path, *, allowed: bool) -> str:
    """The key kept in ``data_dir``, made at first use. ``""`` where it must come from outside.

    Only the embedded run may make its own: several processes on several machines must share
    one, and with an empty key the checks refuse to start. Raises ``OSError`` where
    ``data_dir`` cannot be written.
    """
    if not allowed:
        return ""
    path = data_dir / "secret_key"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        _create(path, secrets.token_urlsafe(50))
    return path.read_text()


def _create(path: Path, text: str) -> None:
    # Whole or not at all: another process may read it in the same moment. The first one's stays.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_text(text)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
