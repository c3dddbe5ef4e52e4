"""The demo from nothing to its report, and again."""

import json
import re
from pathlib import Path

import pytest

from deepavfusion.cli import main
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.demo import DemoConfig, demo


@pytest.mark.slow
def test_demo_makes_a_world_a_model_and_a_report_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = DemoConfig(str(tmp_path), steps=3, clips=90, task_steps=2)
    assert demo(config, main) == 0
    assert (tmp_path / "pretrain" / "model" / "model.safetensors").is_file()
    page = (tmp_path / "report.html").read_text()
    timings = json.loads((tmp_path / "timings.json").read_text())
    stages = [entry["stage"] for entry in timings]
    assert stages[:3] == ["world", "world: solos", "pretrain"]
    parts = ("features of train", "features of test", "train", "score")
    probed = [f"{what}, {start} encoder" for start in ("untrained", "shipped") for what in parts]
    for task, baselines in (
        ("classification", ["untrained encoder"]),
        ("localization", ["centre prior", "2 steps here"]),
        ("separation", ["mixture", "1 steps here"]),
        ("segmentation", ["empty picture", "2 steps here"]),
    ):
        whats = [stage.split(": ")[1] for stage in stages if stage.startswith(f"{task}: ")]
        assert whats == (probed if task == "classification" else ["train", "score"])
        scores = json.loads((tmp_path / task / "results.json").read_text())
        assert set(baselines) <= set(scores["baselines"])
        assert f'id="{task}"' in page
    assert all(entry["command"].startswith("deepavfusion ") for entry in timings)
    assert "--clips 90" in re.sub("<[^>]*>", "", page)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    assert len(made) == 180

    assert demo(config, main) == 0  # all is there: nothing is made or trained again
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")} == made
    assert json.loads((tmp_path / "timings.json").read_text()) == timings
    printed = capsys.readouterr().out
    assert '--splits "[pretrain,train,test,' in printed
    assert "is there" in printed


def test_demo_on_the_users_own_videos(tmp_path: Path) -> None:
    write_sample_clips(tmp_path / "videos", 3)
    assert demo(DemoConfig(str(tmp_path / "run"), videos=str(tmp_path / "videos"), steps=2), main) == 0
    assert not (tmp_path / "run" / "world").exists()
    assert "Pre-training" in (tmp_path / "run" / "report.html").read_text()
