"""Every real clip and every odd file through every task: finite results of the right shapes and times, or one line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from deepavfusion.data.media import MediaError, MediaFile
from deepavfusion.inference.listing import list_items
from deepavfusion.inference.predict import predict_items
from deepavfusion.inference.predict_config import PredictConfig
from tests.inference.tiny_models import WINDOW, predictor

STEP = 0.5
UNREADABLE = {"odd_built__empty.mp4", "odd_built__html.mp4", "odd_built__trunc_moov_end.mp4"}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "localization", "separation", "segmentation", "embedding"])
def test_every_file(task: str, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = (str(shared / "data" / "clips"), str(shared / "data" / "odd"))
    config = PredictConfig(task, folders, str(tmp_path), step_seconds=STEP, arrays=True)  # type: ignore[arg-type]
    items = list_items(config.files)
    assert len(items) == 48
    summary = predict_items(config, predictor(), items)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(summary.failed)
    for item in items:
        name = Path(item.path).name
        if item.path in summary.failed:
            cause = summary.failed[item.path]
            assert 5 < len(cause) < 300
            assert "\n" not in cause
            assert any(line == f"{item.path}: {cause}" for line in lines)
            assert not (tmp_path / item.folder).exists()
        try:
            with MediaFile(item.path) as media:
                info = media.info
        except MediaError:
            assert name in UNREADABLE
            assert item.path in summary.failed
            continue
        needs = task in ("localization", "separation", "segmentation")
        can = info.has_picture and info.has_sound if needs else info.has_picture or info.has_sound
        assert (item.path in summary.done) == can, (name, summary.failed.get(item.path))
        if can:
            check(task, tmp_path / item.folder, info.duration_seconds, info.sound_end_seconds)


def check(task: str, folder: Path, duration: float, sound_end: float) -> None:
    record = json.loads((folder / f"{task}.json").read_text())
    length, tolerance = (sound_end, 0.06) if task == "separation" else (duration, 1e-3)
    assert record["duration_seconds"] == pytest.approx(length, abs=tolerance)
    for name in record["files"].values():
        assert (folder / name).stat().st_size > 0
    if task in ("classification", "embedding"):
        with np.load(folder / f"{task}.npz") as file:
            found = dict(file)
        count = 1 if duration <= WINDOW else math.ceil((duration - WINDOW) / (WINDOW / 2) - 1e-6) + 1
        starts = found["start_seconds"]
        assert len(starts) == count
        assert starts[-1] + float(found["window_seconds"]) == pytest.approx(duration, abs=1e-3)
        for values in found.values():
            assert values.dtype.kind in "Ub" or np.isfinite(values).all()
        if task == "classification":
            assert found["logits"].shape == (count, 3)
            assert found["clip_scores"].sum() == pytest.approx(1, abs=1e-4)
            assert found["present"].any()
        else:
            assert found["fusion"].shape == (count, 16)
    elif task == "separation":
        for source in record["sources"]:
            sound, rate = soundfile.read(folder / source["file"])
            assert rate == 16000
            assert len(sound) == pytest.approx(sound_end * 16000, abs=0.06 * 16000)
            assert np.isfinite(sound).all()
    else:
        count = max(1, math.ceil(duration / STEP - 1e-6))
        assert [m["seconds"] for m in record["moments"]] == pytest.approx([STEP * i for i in range(count)])
        maps = np.load(folder / f"{task}.npy")
        assert maps.shape == ((count, 2, 4, 6) if task == "localization" else (count, 32, 48))
        assert np.isfinite(maps).all()
        picture = np.asarray(Image.open(folder / f"{task}.png"))
        assert picture.ndim == 3
        if count > 1:
            with MediaFile(folder / f"{task}.mp4") as media:
                assert media.info.picture_end_seconds == pytest.approx(count * STEP, abs=0.01)
                assert media.info.has_sound
                assert media.info.sound_end_seconds == pytest.approx(min(sound_end, count * STEP), abs=0.2)
