import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from config.secret_key import kept_secret_key


def test_it_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    key = kept_secret_key(folder, allowed=True)
    assert len(key) >= 50
    assert kept_secret_key(folder, allowed=True) == key
    assert stat.S_IMODE((folder / "secret_key").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["secret_key"]


def test_two_installations_have_two_keys(tmp_path: Path) -> None:
    keys = {kept_secret_key(tmp_path / name, allowed=True) for name in ("a", "b")}
    assert len(keys) == 2


def test_where_it_must_come_from_outside_none_is_made(tmp_path: Path) -> None:
    assert kept_secret_key(tmp_path, allowed=False) == ""
    assert list(tmp_path.iterdir()) == []


def test_those_who_start_at_once_agree(tmp_path: Path) -> None:
    def read(_: int) -> str:
        return kept_secret_key(tmp_path, allowed=True)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(read, range(8)))) == 1


def test_a_folder_that_cannot_be_made_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        kept_secret_key(tmp_path / "file" / "data", allowed=True)
