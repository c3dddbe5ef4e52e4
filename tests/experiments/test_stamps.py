"""The experiments on the cast of stamps: every step's needs are made, and its command is one that the package takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deepavfusion.cli import VERBS
from deepavfusion.data.clips import Clip, find_clips, write_manifest
from deepavfusion.verbs.verb import parsed
from experiments import stamps
from experiments.encoders import Encoders
from experiments.stamps import SETS, Stamps, of_scene_type
from experiments.steps import Step, needed
from experiments.worlds import Worlds


@pytest.fixture
def part(tmp_path: Path) -> Stamps:
    worlds = Worlds(tmp_path / "worlds", tmp_path, tmp_path, None)
    (tmp_path / "farm.rcc").touch()
    return Stamps(tmp_path / "stamps", worlds, Encoders(tmp_path / "encoders", worlds), tmp_path / "farm.rcc")


def test_every_need_has_a_maker_and_every_command_is_taken(part: Stamps) -> None:
    goals = part.steps(1)
    steps = needed(goals, [*part.worlds.steps(), *part.encoders.steps()])
    products = {step.product for step in steps}
    assert len({step.product for step in goals}) < len(steps)
    for step in steps:
        assert set(step.needs) <= products, step.product
        if isinstance(step, Step):
            two, one = " ".join(step.words[:2]), step.words[0]
            verb, words = (VERBS[two], step.words[2:]) if two in VERBS else (VERBS[one], step.words[1:])
            parsed(verb, words)
    encoders = [step for step in steps if isinstance(step, Step) and step.words[0] == "pretrain"]
    assert {step.words[step.words.index("--model.fusion_layers") + 1] for step in encoders} == {"all", "none"}
    assert all(str(part.worlds.stage) in step.words for step in encoders)
    scored = 5 * (3 + 3) + 2 * 3 + 2 * 3 + 2 + 3
    assert len([step for step in goals if step.product.name == "results.json"]) == scored


def test_without_the_package_there_is_nothing_to_do(tmp_path: Path) -> None:
    worlds = Worlds(tmp_path, None)
    encoders = Encoders(tmp_path, worlds)
    assert Stamps(tmp_path, worlds, encoders).steps(0) == []
    assert not [step for step in (*worlds.steps(), *encoders.steps()) if "stage" in str(step.product)]


def test_summary_compares_what_is_given_the_same(part: Stamps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(folders: dict, scores: tuple[str, ...], reference: str, baselines: tuple[str, ...] = ()) -> list[dict]:
        return [{"score": score, "arm": arm, "seeds": len(folders[arm])} for score in scores for arm in folders]

    monkeypatch.setattr(stamps, "paired_rows", rows)
    part.summarize(tmp_path / "stamps.json")
    found = json.loads((tmp_path / "stamps.json").read_text())["rows"]
    parts = {name for several in SETS.values() for name in several}
    sets = {row["set"] for row in found if row["score"].startswith("top1")}
    looked = {f"{name}, fine-tuned, no sound" for name in SETS["effects"]}
    assert sets == parts | {f"{name}, sound alone" for name in parts} | looked
    assert {row["arm"] for row in found if row["set"] == "names_languages"} == {"early", "separate", "picture alone"}
    assert {row["arm"] for row in found if row["set"] == "names_languages, sound alone"} == {"early", "separate"}
    assert {row["arm"] for row in found if row["set"] == "two_effects"} == {"early", "separate", "hears"}


def test_clips_of_one_type_of_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Truth:
        def __init__(self, clip: Clip) -> None:
            self.scene_type = "two_effects" if clip.id in ("a", "c") else "two_names"

    monkeypatch.setattr(stamps, "annotation_of", Truth)
    write_manifest(str(tmp_path / "duets.csv"), [Clip(id=name, path=str(tmp_path / f"{name}.mp4")) for name in "abc"])
    of_scene_type(tmp_path / "duets.csv", "two_effects", tmp_path / "two.csv")
    assert [clip.id for clip in find_clips(str(tmp_path / "two.csv"))] == ["a", "c"]
