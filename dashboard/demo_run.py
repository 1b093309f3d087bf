"""Demo traffic beside a server: ``send_demo_events`` as its child process."""

import subprocess
import sys
from pathlib import Path

from django.conf import settings

from ingest.management.commands.send_demo_events import load_key, make_key, public_half


def accept_demo_key(path: Path) -> None:
    """Accept webhooks signed with the demo key at ``path`` in this process; make it at first use.

    For demo runs only: whoever reads the file can sign. Call it before the first webhook.
    """
    make_key(path)
    load_key(path)  # an unreadable one is reported now, not by the child
    public_pem = public_half(path).read_text()
    settings.WEBHOOK_EXTRA_ED25519_KEYS += f"\n{public_pem}"


class DemoTraffic:
    """The child process; it ends with the server, or by itself once nobody answers."""

    def __init__(self, key_path: Path, *, history_hours: int = 0) -> None:
        self._key_path = key_path
        self._history_hours = history_hours
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, url: str) -> None:
        """Send to the server at ``url``, signed with the key."""
        command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "send_demo_events"]
        # A process group of its own: Ctrl-C reaches the server alone, which then stops it.
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [
                *command,
                *("--url", f"{url}webhooks/lc-email/", "--key", str(self._key_path)),
                *("--history", str(self._history_hours)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,
        )

    def stop(self) -> None:
        """End it, by force after two seconds."""
        if not self._process:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
