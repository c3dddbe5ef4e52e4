"""What is no file of features is named in one line, and so are features that are no numbers."""

from pathlib import Path

import numpy as np
import pytest

from deepavfusion.cli import main
from deepavfusion.data.features import join_parts, read_features, save_arrays

META = {
    "tokens": "pooled",
    "modalities": "both",
    "encoder_digest": "0",
    "failed": {},
    "quarantined": {},
    "missing": [],
    "source": "x",
    "split": "all",
}


def write(path: Path, fusion: np.ndarray) -> None:
    count = len(fusion)
    arrays = {name: np.array(["a", "b", "c"][:count], dtype=np.str_) for name in ("ids", "labels", "splits")}
    flags = {f"{name}_present": np.ones(count, bool) for name in ("image", "audio")}
    save_arrays(path.with_suffix(".part.npz"), {**arrays, **flags, "fusion": fusion.astype(np.float32)})
    join_parts([path.with_suffix(".part.npz")], path, META)


def test_damaged_feature_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "good.npz"
    write(good, np.eye(3, 4))
    assert read_features(str(good)).ids == ("a", "b", "c")
    whole = good.read_bytes()
    contents = {
        "empty": (b"", "it is empty"),
        "cut": (whole[: len(whole) // 2], ""),
        "page": (b"<html></html>", ""),
        "text": (b"hello", ""),
        "flipped": (whole[:200] + bytes(64) + whole[264:], ""),
    }
    for name, (content, message) in contents.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        assert main(["knn", "--train", str(good), "--test", str(path), "--out", str(tmp_path / "o")]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"{path}: no features written by" in line
        assert message in line
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match=r"array\.npz: no features written by"):
        read_features(str(tmp_path / "array.npz"))


def test_features_that_are_no_numbers_give_no_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "good.npz", np.eye(3, 4))
    rows = np.eye(3, 4)
    rows[1, 2] = np.nan
    write(tmp_path / "nan.npz", rows)
    for train, test in (("good", "nan"), ("nan", "good")):
        words = ["knn", "--train", str(tmp_path / f"{train}.npz"), "--test", str(tmp_path / f"{test}.npz"), "--k", "1"]
        assert main([*words, "--out", str(tmp_path / "o")]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "nan.npz: fusion features of 1 of 3 clips are NaN, such as of b" in line
    assert not (tmp_path / "o").exists()
