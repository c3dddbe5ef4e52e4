"""The page says what the run's files say, and what they do not."""

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deepavfusion.data.clips import Clip
from deepavfusion.data.scenes.annotation import read_annotation
from deepavfusion.report import write_report
from deepavfusion.report.demo_run import evaluation_parts
from deepavfusion.report.page import build_page
from deepavfusion.report.plots import draw_curve
from deepavfusion.report.results import read_evaluation
from deepavfusion.report.sections import Curve, Estimate, Page, Section, Series
from deepavfusion.report.world import choose_clips
from tests.report.conftest import HOSTILE, METRICS, PROBES, RESULTS, TIMINGS
from tests.report.test_markup import Recorder


@pytest.fixture(scope="module")
def page(demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    out = write_report(demo_run, tmp_path_factory.mktemp("out") / "report.html")
    seen = Recorder()
    seen.feed(out.read_text(encoding="utf-8"))
    seen.close()
    return seen


def curves(page: Recorder) -> dict[str, dict[str, list[float]]]:
    """By aria label of the plot: values by series name, as numbers."""
    found = {}
    for _, attributes in page.elements:
        if stored := attributes.get("data-curve"):
            curve = json.loads(stored)
            lines = {"x": curve["x"]} | dict(zip(curve["names"], curve["values"], strict=True))
            numbers = {k: [float(v.replace("−", "-").replace(",", "")) for v in line] for k, line in lines.items()}
            found[str(attributes["aria-label"]).split(":")[0]] = numbers
    return found


def test_curves_hold_the_rows_of_the_run(page: Recorder) -> None:
    drawn = curves(page)
    assert set(drawn) == {"Loss", "Nearest neighbour", "Learning rate"}
    expected = {
        ("Loss", "x"): [row["step"] for row in METRICS],
        ("Loss", "image"): [row["loss_image"] for row in METRICS],
        ("Loss", "audio"): [row["loss_audio"] for row in METRICS],
        ("Learning rate", "learning rate"): [row["lr"] for row in METRICS],
        ("Nearest neighbour", "fusion"): [row["top1_fusion"] for row in PROBES],
        ("Nearest neighbour", "audio"): [row["top1_audio"] for row in PROBES],
    }
    for (title, name), values in expected.items():
        assert drawn[title][name] == pytest.approx(values, rel=1e-3)


def test_scores_stand_with_interval_and_baselines(page: Recorder) -> None:
    texts = [text for text in page.texts if text.strip()]
    for estimate in (
        *RESULTS["scores"].values(),  # type: ignore[attr-defined]
        *RESULTS["baselines"]["untrained"].values(),  # type: ignore[index]
    ):
        assert f"{estimate['value']:.3f}" in texts
        if "low" in estimate:
            assert f"{estimate['low']:.3f} to {estimate['high']:.3f}" in texts
    assert "+0.278" in texts
    assert "−0.014 to +0.056" in texts
    assert "no interval" in texts
    said = "".join(texts)
    for words in ("238 clips scored", "2 left out (missing)", "3 counted as wrong (prediction not finite)"):
        assert words in said
    assert HOSTILE in said


def test_times_and_commands(page: Recorder) -> None:
    said = "".join(page.texts)
    assert "48 s" in said
    assert "1 min 11 s" in said
    assert "2 min 02 s" in said  # together
    for stage in TIMINGS:
        if stage["command"]:
            assert str(stage["command"]) in said


def test_clips_are_whole_and_their_times_are_those_of_the_annotation(page: Recorder, demo_run: Path) -> None:
    stored = [str(a["src"]) for tag, a in page.elements if tag == "video"]
    clips = sorted((demo_run / "world").glob("*/*.mp4"))
    assert len(stored) == len(clips) == 4
    contents = {base64.b64decode(uri.removeprefix("data:video/mp4;base64,")) for uri in stored}
    assert contents == {clip.read_bytes() for clip in clips}
    labels = [str(a.get("aria-label")) for _, a in page.elements]
    for clip in clips:
        for source in read_annotation(clip).sources:
            if source.sounding:
                assert "heard " + ", ".join(f"{a:.2f} to {b:.2f} s" for a, b in source.sounding) in labels


def test_the_page_asks_for_nothing_beside_itself(page: Recorder) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "poster", "srcset", "action", "data"):
            value = attributes.get(name) or "#"
            assert value.startswith(("data:", "#")), f"{tag} {name}={value[:80]}"
    assert sum(tag == "script" for tag, _ in page.elements) == 1


def test_pictures_and_controls_have_words(page: Recorder) -> None:
    for tag, attributes in page.elements:
        if tag == "img":
            assert attributes["alt"]
        if tag in ("video", "audio", "button") or attributes.get("role") in ("img", "slider", "group"):
            assert attributes.get("aria-label")
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = {str(attributes["href"])[1:] for tag, attributes in page.elements if tag == "a"}
    assert links <= ids


def test_an_empty_run_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    text = write_report(tmp_path / "run", tmp_path / "report.html").read_text(encoding="utf-8")
    for looked_for in ("world/manifest.csv", "pretrain/", "*/results.json", "timings.json"):
        assert f"<code>{looked_for}</code>" in text
    assert text.count('class="missing"') == 4
    assert "data-curve" not in text.split("<script>")[0]


def test_single_missing_parts_are_said(demo_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(demo_run, run)
    for gone in ("pretrain/probes.csv", "pretrain/config.yaml", "world/classes.png"):
        (run / gone).unlink()
    shutil.rmtree(run / "pretrain" / "pictures")
    text = write_report(run, tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count('class="missing"') == 4
    assert "variance 1" not in text  # unknown without the settings, so not claimed


def test_what_makes_no_sense_leaves_the_old_report(demo_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(demo_run / "pretrain", run / "pretrain")
    out = tmp_path / "report.html"
    out.write_text("old")
    metrics = run / "pretrain" / "metrics.csv"
    metrics.write_text(metrics.read_text().replace("1.0296825", "much"))
    with pytest.raises(ValueError, match=re.escape(f"{metrics}: step 20 has no number in column loss_image: 'much'")):
        write_report(run, out)
    with pytest.raises(ValueError, match="not the folder of a run"):
        write_report(tmp_path / "nowhere", out)
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) in ([run, out], [out, run])


def test_a_long_curve_is_thinned_and_says_so() -> None:
    steps = tuple(float(step) for step in range(5000))
    drawn = draw_curve(Curve("loss", "step", steps, (Series("loss", steps),)))
    assert "every 13th of 5000 rows" in drawn
    assert "4,999" in drawn
    assert len(drawn) < 60_000


def test_a_curve_breaks_where_a_value_is_not_finite() -> None:
    drawn = draw_curve(Curve("loss", "step", (0.0, 1.0, 2.0), (Series("loss", (1.0, float("nan"), 2.0)),)))
    assert "not finite" in drawn
    assert re.search(r'd="M0\.0 1000\.0M1000\.0 0\.0"', drawn)
    with pytest.raises(ValueError, match="2 of 3 values"):
        Curve("loss", "step", (0.0, 1.0, 2.0), (Series("loss", (1.0, 2.0)),))


def test_an_interval_has_both_ends() -> None:
    assert not Estimate(0.3).excludes_zero
    with pytest.raises(ValueError, match="both ends"):
        Estimate(0.3, low=0.1)


def test_clips_of_all_splits_come_first() -> None:
    clips = [Clip(f"{split}{i}", "x.mp4", split=split) for split in ("a", "b", "c") for i in range(3)]
    assert [clip.id for clip in choose_clips(clips, 5)] == ["a0", "b0", "c0", "a1", "b1"]


def test_many_scores_are_folded_and_sounds_play(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    tone = np.sin(np.arange(4000) / 9)
    soundfile.write(tmp_path / "best" / "mixture.wav", tone, 8000)
    scores = {f"score {i}": {"value": i / 10} for i in range(9)}
    sounds = {"duets_000001": {"mixture": "best/mixture.wav"}}
    record = {"protocol": "p", "num_scored": 3, "scores": scores, "sounds": sounds}
    (tmp_path / "results.json").write_text(json.dumps(record))
    parts = evaluation_parts(read_evaluation(tmp_path / "results.json"))
    html = build_page(Page("t", "l", (), (Section("a", "s", "l", tuple(parts)),)))
    shown, folded = html.split("<details>")
    assert "score 5" in shown
    assert "score 6" not in shown
    assert "3 more scores" in folded
    assert all(f"score {i}" in folded for i in (6, 7, 8))
    stored = re.search(r'<audio src="data:audio/wav;base64,([^"]+)"', html)
    assert stored is not None
    assert base64.b64decode(stored[1]) == (tmp_path / "best" / "mixture.wav").read_bytes()
    assert 'data-seconds="0.5"' in html
    (tmp_path / "results.json").write_text(json.dumps({**record, "sounds": {"x": {"mixture": 3}}}))
    with pytest.raises(ValueError, match=r"sounds\.x\.mixture"):
        read_evaluation(tmp_path / "results.json")
