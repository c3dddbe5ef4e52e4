"""Linear probes of what only both senses tell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion.data.features import join_parts, save_arrays
from experiments import senses
from experiments.encoders import Encoders
from experiments.linear_probe import accuracy
from experiments.senses import Senses, foreign, probe
from experiments.worlds import Worlds


def test_every_sound_is_foreign_once_and_of_another_size() -> None:
    sizes = np.random.default_rng(0).uniform(40, 90, 101)
    others = foreign(sizes)
    assert sorted(others.tolist()) == list(range(101))
    assert np.abs(np.log(sizes[others] / sizes)).min() > 0.2


def test_what_is_told_apart_says_nothing_of_the_pair_and_their_product_does() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.uniform(40, 90, 400)
    seen, heard = (np.log(np.tile(sizes, 2)), np.log(np.concatenate([sizes, sizes[foreign(sizes)]])))
    own = torch.arange(2).flip(0).repeat_interleave(400)
    apart = torch.from_numpy(np.stack([seen, heard, seen**2, heard**2], axis=1)).float()
    joined = torch.cat([apart, torch.from_numpy(np.abs(seen - heard))[:, None].float()], dim=1)
    assert accuracy(apart, own, apart, own) < 0.56
    assert accuracy(joined, own, joined, own) > 0.95


def features(out: Path, image: np.ndarray, fusion: np.ndarray | None, labels: list[str]) -> Path:
    names = np.array([f"clip{n}" for n in range(len(labels))])
    arrays = {"ids": names, "labels": np.array(labels), "splits": np.array([""] * len(labels)), "image": image}
    arrays |= {} if fusion is None else {"fusion": fusion}
    arrays |= dict.fromkeys(("image_present", "audio_present"), np.ones(len(labels), bool))
    save_arrays(out.with_suffix(".part.npz"), arrays)
    join_parts([out.with_suffix(".part.npz")], out, {"tokens": "pooled"})
    return out


def test_probes_and_their_summary_pair_early_fusion_with_separate_encoders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(senses, "SEEDS", (0,))
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 200)
    labels = ["left" if value else "right" for value in truth]
    noise = rng.standard_normal((200, 4)).astype(np.float32)
    telling = noise + 6 * truth[:, None].astype(np.float32)
    worlds = Worlds(tmp_path / "worlds", None)
    part = Senses(tmp_path, worlds, Encoders(tmp_path / "encoders", worlds))
    for kind, fusion in (("early", telling), ("separate", None)):
        file = features(tmp_path / f"{kind}.npz", noise, fusion, labels)
        probe(file, file, part.numbers("twins", kind, 0))
    part.summarize(tmp_path / "senses.json")
    rows = {row["arm"]: row for row in json.loads((tmp_path / "senses.json").read_text())["rows"]}
    assert rows["early, fusion"]["value"] > 0.98
    assert rows["separate"]["value"] < 0.65
    assert rows["early, fusion"]["minus_separate"]["low"] > 0.25
    assert rows["early, fusion"]["num"] == 200
    assert all("digits" not in str(step.product) for step in part.steps(0))  # there are no files of digits


def test_seeds_that_were_run_elsewhere_and_rows_of_other_objectives_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(senses, "SEEDS", (0, 1))
    out = tmp_path / "docs" / "senses.json"
    out.parent.mkdir()
    old = {"set": "twins", "objective": "alignment", "arm": "separate", "value": 0.5, "seeds": [0.5], "num": 4}
    out.write_text(json.dumps({"rows": [old]}))
    told = {"early": [[1, 1, 1, 0], [1, 1, 1, 1]], "separate": [[0, 1, 1, 0], [1, 0, 1, 0]]}
    for seed in (0, 1):  # each on a machine that has the other's files no longer
        here = tmp_path / str(seed)
        worlds = Worlds(here / "worlds", None)
        part = Senses(here, worlds, Encoders(here / "encoders", worlds))
        here.mkdir()
        for kind, own in told.items():
            part.numbers("twins", kind, seed).write_text(json.dumps({"all": own[seed]}))
        part.summarize(out)
    rows = {(row["objective"], row["arm"]): row for row in json.loads(out.read_text())["rows"]}
    assert rows["alignment", "separate"] == old
    assert rows["reconstruction", "early, all"]["seeds"] == [0.75, 1.0]
    assert rows["reconstruction", "early, all"]["minus_separate"]["value"] == pytest.approx(0.375)
    assert (tmp_path / "docs" / "senses" / "twins-early-1.json").read_text() == '{\n "all": "1111"\n}\n'
