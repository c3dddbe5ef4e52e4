"""Which clips a score is about."""

from pathlib import Path

import pytest

from deepavfusion.data.clips import Clip, write_manifest
from deepavfusion.data.sets.manifest_report import LackingClip, digest_ids, write_lacking
from deepavfusion.evaluation.coverage import coverage, select_clips


def write(folder: Path) -> str:
    rows = [
        Clip("a", "a.mp4", "x", "train"),
        Clip("b", "b.mp4", "x", "test"),
        Clip("c", "c.mp4", None, "test"),
        Clip("d", "d.mp4", "y", "Testing", verdict="quarantined", reason="no frames"),
        Clip("e", "e.mp4", "y", "test"),
        Clip("f", "f.mp4", "y", "test"),
    ]
    write_manifest(str(folder / "set.csv"), rows)
    lacking = [
        LackingClip("g", "x", "test", "missing"),
        LackingClip("h", "x", "train", "missing"),
        LackingClip("d", "y", "test", "no frames"),
    ]
    write_lacking(str(folder / "set.missing.csv"), lacking)
    return str(folder / "set.csv")


def test_the_line_accounts_for_every_official_clip(tmp_path: Path) -> None:
    selection = select_clips(write(tmp_path), "test")
    assert [clip.id for clip in selection.clips] == ["b", "e", "f"]
    covered = coverage(selection, ["b", "e"], {"f": "cut off"})
    assert covered.num_official == 6
    assert (covered.missing, covered.unlabelled) == (("g",), ("c",))
    assert covered.failed == {"d": "no frames", "f": "cut off"}
    assert covered.num_scored + 1 + 1 + 2 == covered.num_official
    assert covered.official_digest == digest_ids("bcdefg")
    assert covered.line() == (
        f"scored 2 of 6 official clips (ids {digest_ids('be')}); 1 missing: g; 2 failed: d, f; 1 without label: c"
    )


def test_splits_are_chosen_by_any_spelling_and_never_guessed(tmp_path: Path) -> None:
    source = write(tmp_path)
    assert len(select_clips(source, "all").official) == 8
    assert select_clips(source, "train").missing == ("h",)
    assert [clip.id for clip in select_clips(source, "testing", needs_label=False).clips] == ["b", "c", "e", "f"]
    with pytest.raises(ValueError, match=r"split val: .* has Testing, test, train"):
        select_clips(source, "val")
    write_manifest(str(tmp_path / "whole.csv"), [Clip("a", "a.mp4", "x")])
    assert len(select_clips(str(tmp_path / "whole.csv"), "test").clips) == 1
    with pytest.raises(ValueError, match=r"split train: .* has no splits"):
        select_clips(str(tmp_path / "whole.csv"), "train")
    write_manifest(str(tmp_path / "bare.csv"), [Clip("a", "a.mp4")])
    with pytest.raises(ValueError, match="none of 1 clips of split test can be used and has a label"):
        select_clips(str(tmp_path / "bare.csv"), "test")
