import stat
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from dashboard.management.commands.first_login import get_login_line

pytestmark = pytest.mark.django_db


def test_the_first_time_an_account_is_made_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "data" / "login.txt"
    line = get_login_line(path)
    username, password = path.read_text().split()
    user = User.objects.get(username=username)
    assert user.is_superuser and user.is_staff and user.check_password(password)
    assert f"log in as {username} with the password {password}" in line
    assert len(password) >= 16
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_later_the_password_is_not_shown_again(tmp_path: Path) -> None:
    path = tmp_path / "login.txt"
    get_login_line(path)
    password = path.read_text().split()[1]
    line = get_login_line(path)
    assert password not in line and str(path) in line
    assert User.objects.count() == 1


def test_two_installations_have_two_passwords(tmp_path: Path) -> None:
    get_login_line(tmp_path / "a")
    User.objects.all().delete()
    get_login_line(tmp_path / "b")
    assert (tmp_path / "a").read_text() != (tmp_path / "b").read_text()


def test_an_old_file_does_not_keep_its_wide_permissions(tmp_path: Path) -> None:
    path = tmp_path / "login.txt"
    path.write_text("of a database that is gone")
    path.chmod(0o644)
    get_login_line(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nobody_elses_account_is_touched(tmp_path: Path) -> None:
    User.objects.create_user("admin", password="theirs")
    get_login_line(tmp_path / "login.txt")
    theirs = User.objects.get(username="admin")
    assert theirs.check_password("theirs") and not theirs.is_superuser
    assert User.objects.filter(is_superuser=True).count() == 1


def test_with_a_superuser_of_ones_own_nothing_is_made(tmp_path: Path) -> None:
    User.objects.create_superuser("me")
    line = get_login_line(tmp_path / "login.txt")
    assert "the account you made" in line
    assert list(tmp_path.iterdir()) == []


def test_no_account_stays_whose_password_could_not_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        get_login_line(tmp_path / "file" / "login.txt")
    assert User.objects.count() == 0
