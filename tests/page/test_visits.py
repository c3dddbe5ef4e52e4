"""Whose files are whose, and that they go with their owners."""

from __future__ import annotations

import os
import time
from pathlib import Path

from deepavfusion.page.visits import MAX_UPLOADS, ORPHAN_SECONDS, Visits


def upload(visits: Visits, name: str, folder: str = "digest") -> Path:
    path = visits.uploads / folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"bytes")
    return path


def files(visits: Visits) -> set[str]:
    return {path.name for path in visits.root.rglob("*") if path.is_file()}


def test_everything_of_a_visit_goes_when_it_ends(visits: Visits) -> None:
    visits.claim("a", [upload(visits, "a.mp4"), None])
    place = visits.begin("a", "a")
    (place.results / "classification.json").write_text("{}")
    place.archive.write_bytes(b"zip")
    assert visits.find(place.token, "classification.json") == place.results / "classification.json"
    assert visits.find(place.token, "a.zip") == place.archive
    visits.end("a")
    assert files(visits) == set()
    assert place.given_up.is_set()
    assert visits.find(place.token, "a.zip") is None
    assert list(visits.uploads.iterdir()) == []
    visits.end("a")  # twice is harmless


def test_an_upload_that_two_visits_have_goes_with_the_last(visits: Visits) -> None:
    path = upload(visits, "same.mp4")
    visits.claim("a", [path])
    visits.claim("b", [path])
    visits.end("a")
    assert path.exists()
    visits.end("b")
    assert not path.exists()


def test_a_visit_keeps_its_latest_uploads(visits: Visits) -> None:
    paths = [upload(visits, f"{n}.mp4", f"digest{n}") for n in range(MAX_UPLOADS + 2)]
    for path in paths:
        visits.claim("a", [path])
    assert [path.exists() for path in paths] == [False, False, *[True] * MAX_UPLOADS]


def test_what_is_no_upload_is_never_deleted(visits: Visits, tmp_path: Path) -> None:
    elsewhere = tmp_path / "passwords"
    elsewhere.write_text("mine")
    tricky = visits.uploads / ".." / ".." / elsewhere.name
    assert tricky.exists()
    visits.claim("a", [elsewhere, str(tricky)])
    visits.end("a")
    assert elsewhere.exists()


def test_a_new_request_replaces_the_one_before(visits: Visits) -> None:
    first = visits.begin("a", "one")
    (first.results / "x.json").touch()
    second = visits.begin("a", "two")
    assert first.given_up.is_set()
    assert not first.folder.exists()
    first.results.mkdir(parents=True)  # a worker that has not noticed yet
    visits.finish("a", first)
    assert not first.folder.exists()
    visits.finish("a", second)
    assert second.results.exists()
    assert not second.given_up.is_set()
    assert first.token != second.token
    assert len(second.token) >= 20


def test_a_result_written_after_its_visit_has_ended_goes_too(visits: Visits) -> None:
    place = visits.begin("a", "a")
    visits.end("a")
    place.results.mkdir(parents=True)
    (place.results / "late.json").touch()
    visits.finish("a", place)
    assert files(visits) == set()


def test_addresses_do_not_lead_elsewhere(visits: Visits) -> None:
    place = visits.begin("a", "a")
    (place.results / "x.json").touch()
    (place.results / ".hidden").touch()
    (place.results / "link").symlink_to("/etc/passwd")
    other = visits.begin("b", "b")
    (other.results / "secret.json").touch()
    tricks = ["../x.json", "..", "", ".hidden", "link", f"../../{other.token}/b/secret.json", "x.json\0", "/etc/passwd"]
    assert [name for name in tricks if visits.find(place.token, name)] == []
    assert visits.find("", "x.json") is None
    assert visits.find(place.token, "x.json") is not None


def test_sweep_ends_idle_visits_and_takes_orphans(visits: Visits) -> None:
    owned, orphan, fresh = (
        upload(visits, "owned.mp4", "1"),
        upload(visits, "orphan.mp4", "2"),
        upload(visits, "new", "3"),
    )
    visits.claim("a", [owned])
    running = visits.begin("b", "b")
    old = time.time() - ORPHAN_SECONDS - 10
    for path in (owned, orphan):
        os.utime(path, (old, old))
    visits.sweep(3600)
    assert (owned.exists(), orphan.exists(), fresh.exists()) == (True, False, True)
    visits.sweep(0)
    assert not owned.exists()
    assert not running.given_up.is_set()  # at work: not idle
    assert len(visits) == 1
    visits.finish("b", running)
    visits.sweep(0)
    assert len(visits) == 0
    assert not running.folder.exists()


def test_close_deletes_everything(visits: Visits) -> None:
    visits.claim("a", [upload(visits, "a.mp4")])
    place = visits.begin("a", "a")
    visits.close()
    assert not visits.root.exists()
    assert place.given_up.is_set()
