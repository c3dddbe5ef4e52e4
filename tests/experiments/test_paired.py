"""Scores of arms and seeds, gathered from the files of evaluations."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.paired import paired_rows, whole_rows


def write_evaluation(folder: Path, values: list[float], whole: float, of_baseline: float) -> Path:
    folder.mkdir(parents=True)
    ids = np.array([f"clip{n}" for n in range(len(values))])
    protocol = "by hand"
    np.savez(folder / "samples.npz", ids=ids, protocol=protocol, hits=np.array(values))
    record = {
        "protocol": protocol,
        "num_scored": len(values),
        "scores": {"AP": {"value": whole}},
        "baselines": {"silence": {"AP": {"value": of_baseline}}},
    }
    (folder / "results.json").write_text(json.dumps(record))
    return folder


def test_scores_of_all_samples_together_are_means_over_seeds_without_intervals(tmp_path: Path) -> None:
    folders = {
        "early": {n: write_evaluation(tmp_path / f"early{n}", [1.0, 0.0], ap, 0.1) for n, ap in enumerate((0.2, 0.4))},
        "late": {0: write_evaluation(tmp_path / "late0", [0.0, 0.0], 0.3, 0.5), 1: tmp_path / "not there"},
    }
    rows = {row["arm"]: row for row in whole_rows(folders, ("AP", "absent"), "early", ("silence", "noise"))}
    assert {arm: row["seeds"] for arm, row in rows.items()} == {
        "early": [0.2, 0.4],
        "late": [0.3],
        "silence": [0.1, 0.1],
    }
    assert rows["early"]["value"] == pytest.approx(0.3)
    assert all(row["num_samples"] == 2 and "reference_minus_arm" not in row for row in rows.values())


def test_intervals_are_of_the_seeds_that_both_arms_have(tmp_path: Path) -> None:
    folders = {
        "early": {n: write_evaluation(tmp_path / f"early{n}", [1.0, n / 2], 0, 0) for n in range(2)},
        "late": {0: write_evaluation(tmp_path / "late0", [0.5, 0.0], 0, 0)},
    }
    rows = {row["arm"]: row for row in paired_rows(folders, ("hits",), "early")}
    assert rows["early"]["value"] == pytest.approx((0.5 + 0.75) / 2)
    assert rows["late"]["reference_minus_arm"]["value"] == pytest.approx((0.5 + 0.0) / 2)  # of seed 0 alone
