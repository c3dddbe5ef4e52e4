"""VGGSounder's labels on saved predictions, against values worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deepavfusion.data.sets.vocabularies import shipped_classes
from deepavfusion.evaluation.classification.evaluator import Labelled
from deepavfusion.evaluation.classification.results import classification_findings
from deepavfusion.evaluation.classification.vggsounder import score_vggsounder
from deepavfusion.evaluation.config import VggsounderConfig
from deepavfusion.evaluation.coverage import ClipSelection
from deepavfusion.evaluation.loop import Predictions

CLASSES = shipped_classes("vggsound")
IDS = [f"{letter * 11}_000001" for letter in "abcd"]


def write(folder: Path, best: dict[str, int]) -> str:
    scores = np.zeros((len(best), len(CLASSES)), dtype=np.float32)
    scores[range(len(best)), list(best.values())] = 1
    values = {"average": scores, "average_present": np.ones(len(best), dtype=bool)}
    targets = np.eye(len(CLASSES), dtype=bool)[[0] * len(best)]
    predictions = Predictions(np.arange(len(best)), tuple(best), values, {})
    selection = ClipSelection("x", "test", (), tuple(best), (), {}, ())
    findings = classification_findings(predictions, Labelled(CLASSES, targets, False), selection, "centre window", {})
    findings.write(folder)
    return str(folder)


def annotate(path: Path) -> str:
    rows = [(IDS[0], 3, "AV"), (IDS[0], 5, "A"), (IDS[1], 5, "V"), (IDS[2], 3, "AV"), (IDS[3], 9, "A")]
    lines = [f'{clip},"{CLASSES[number]}",{kind},False,False,False' for clip, number, kind in rows]
    path.write_text("\n".join(["video_id,label,modality,background_music,static_image,voice_over", *lines]) + "\n")
    return str(path)


def test_subsets_and_confusion(tmp_path: Path) -> None:
    annotations = annotate(tmp_path / "vggsounder.csv")
    both = write(tmp_path / "both", {IDS[0]: 5, IDS[1]: 7, IDS[2]: 7})
    image = write(tmp_path / "image", {IDS[2]: 3, IDS[1]: 7, IDS[0]: 7})
    audio = write(tmp_path / "audio", {IDS[0]: 3, IDS[1]: 5, IDS[2]: 3})
    found = score_vggsounder(VggsounderConfig(annotations, both, image, audio, out=str(tmp_path / "x.json")))
    hits = {name: own.hit[1] for name, own in found.subsets.items()}
    # Both models together: the first is a hit as something heard, but not seen; the others are none.
    assert hits == pytest.approx(
        {"all": 1 / 3, "audible": 1 / 2, "visible": 0, "audible only": 1, "visible only": 0, "both": 0}
    )
    assert found.subsets["audible"].num_scored == 2
    assert found.confusion is not None
    # The second: sound alone is right. The third: either alone is right.
    confusion = (found.confusion.audio, found.confusion.image, found.confusion.both, found.confusion.either)
    assert confusion == pytest.approx((2 / 3, 1 / 3, 1 / 3, 2 / 3))
    assert found.coverage.missing == (IDS[3],)
    assert "scored 3 of 4" in json.loads((tmp_path / "x.json").read_text())["coverage"]["line"]


def test_mistakes_are_named(tmp_path: Path) -> None:
    annotations = annotate(tmp_path / "vggsounder.csv")
    other = write(tmp_path / "other", {"z" * 11: 0})
    with pytest.raises(ValueError, match="predicts none of the 4 clips"):
        score_vggsounder(VggsounderConfig(annotations, other))
    with pytest.raises(ValueError, match="needs the evaluations of both"):
        VggsounderConfig(annotations, other, image=other)
