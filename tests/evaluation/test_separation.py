"""Evaluation of separation on real little clips: files, baselines, duets, pairs, protocols, processes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console

from deepavfusion.arguments import UsageError, parse_arguments
from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import generate
from deepavfusion.data.clips import Clip, read_manifest, write_manifest
from deepavfusion.data.mixtures import Part, mix_clips
from deepavfusion.evaluation.config import EvaluationData
from deepavfusion.evaluation.evaluate import evaluate
from deepavfusion.evaluation.frame import Evaluated, show
from deepavfusion.evaluation.loop import OneProcess, predict_all
from deepavfusion.evaluation.record import read_samples
from deepavfusion.evaluation.separation.config import EvaluateSeparationConfig
from deepavfusion.evaluation.separation.evaluator import MODEL, SeparationEvaluator, attenuation, oracle
from deepavfusion.images import normalize
from deepavfusion.metrics.separation import score_systems
from deepavfusion.models import Separator, SeparatorConfig
from deepavfusion.report.results import read_evaluation
from deepavfusion.storage.bundle import Bundle
from tests.data.media_writer import Clip as MediaClip
from tests.data.media_writer import write_clip
from tests.tasks.separation_runs import ENCODER, write_shapes

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), 8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    make_model().save_pretrained(folder / "model")
    make_model(seed=7, condition="none").save_pretrained(folder / "deaf" / "model")
    return folder


def make_model(seed: int = 2, **settings: Any) -> Separator:
    torch.manual_seed(seed)
    model = Separator(SeparatorConfig(encoder=ENCODER, decoder_dim=32, **settings))
    with torch.no_grad():
        model.decoder.head.weight.mul_(30)  # masks that differ from place to place and from picture to picture
    return model.eval()


def settings(run: Path, source: Path, **changes: Any) -> EvaluateSeparationConfig:
    data = EvaluationData(str(source), split=changes.pop("split", "all"), num_workers=0)
    return EvaluateSeparationConfig(str(run), data, **{"batch_size": 3, "examples": 2, **changes})


def score(config: EvaluateSeparationConfig) -> Evaluated:
    result = evaluate(config)
    assert result is not None
    return result


def test_files_tell_scores_baselines_and_coverage(data: Path, run: Path, tmp_path: Path) -> None:
    result = score(settings(run, data, num_mixtures=3, baselines=(f"hears only={run / 'deaf'}",), out=str(tmp_path)))
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    sounds = {"mixture", "residual", *(f"{what}_{n}" for what in ("estimate", "reference") for n in range(2))}
    assert names == {
        "results.json",
        "samples.npz",
        "improvement.png",
        *(f"{name}.png" for name in ("best", "worst")),
        *(f"{name}/{sound}.wav" for name in ("best", "worst") for sound in sounds),
    }
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["coverage"]["num_scored"] == record["coverage"]["num_official"] == 3
    assert record["coverage"]["line"].startswith("scored 3 of 3 mixtures")
    assert "sums of 2 clips (pairing auto, seed 0)" in record["protocol"]
    assert set(record["baselines"]) == {"mixture", "wrong picture", "swapped pictures", "oracle mask", "hears only"}
    read_evaluation(tmp_path / "results.json")
    # The means are means of samples.npz, and the classes' parts add up.
    ids, samples, protocol = read_samples(str(tmp_path))
    assert protocol == record["protocol"]
    for name, value in record["scores"].items():
        assert value["value"] == pytest.approx(np.nanmean(samples[name])), name
    apart = [samples[f"SDRi {kind}"] for kind in ("same class", "different classes")]
    np.testing.assert_array_equal(np.isnan(apart[0]), ~np.isnan(apart[1]))
    np.testing.assert_allclose(samples["SDRi"], samples["SDR"] - samples["SDR of mixture"], atol=1e-9)
    gap = record["baselines"]["hears only"]["SDR"]["difference"]
    assert gap["value"] == pytest.approx((samples["SDR"] - samples["SDR of hears only"]).mean())
    assert gap["low"] <= gap["value"] <= gap["high"]
    assert record["baselines"]["oracle mask"]["SDR"]["value"] > record["scores"]["SDR"]["value"] + 5
    mixture, rate = soundfile.read(tmp_path / "best" / "mixture.wav")
    parts = [soundfile.read(tmp_path / "best" / f"{name}.wav")[0] for name in ("estimate_0", "estimate_1", "residual")]
    assert (rate, len(mixture)) == (16000, 8000)
    np.testing.assert_allclose(sum(parts), mixture, atol=3e-4)
    console = Console(file=io.StringIO(), width=250)
    show(result, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for told in ("scored 3 of 3 mixtures", "hears only", "oracle mask", "clean source lost dB"):
        assert told in printed
    assert len(ids) == 3


def test_a_head_of_a_bundle_scores_as_its_run_does(data: Path, run: Path, tmp_path: Path) -> None:
    Bundle.save(tmp_path / "bundle", {"separation": run})
    places = (run, tmp_path / "bundle")
    found = [score(settings(place, data, num_mixtures=2, examples=0, out=str(tmp_path / "out"))) for place in places]
    assert found[0].record.scores == found[1].record.scores
    with pytest.raises(ValueError, match="out: shipped:bandstand is no folder to put results into; name one"):
        settings(Path("shipped:bandstand"), data)
    encoder = replace(settings(tmp_path / "bundle", data), baselines=("a=nowhere",), out=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="nowhere: neither a finished run"):
        evaluate(encoder)


def test_scores_are_those_of_the_models_own_sounds(data: Path) -> None:
    """By hand: pictures one by one through the model, its waveform against the clip's sound."""
    model = make_model()
    parts = [Part(clip, label=clip.label) for clip in read_manifest(str(data))]
    mixtures = mix_clips(parts, 2, 2, "any", 0)
    evaluator = SeparationEvaluator(model, mixtures)
    found = predict_all(evaluator, OneProcess(CPU), 2, 0)
    assert found.ids == tuple(mixture.id for mixture in mixtures)
    with evaluator.loader([1], 1, 0, CPU) as loader, torch.no_grad():
        batch = next(iter(loader))
        separated = evaluator.separate(batch, CPU)
        estimates = torch.stack(
            [model(normalize(batch.image[n : n + 1]), batch.waveform[:2].sum(0)[None]).waveform()[0] for n in range(2)]
        )
        clean = model(normalize(batch.image[:1]), batch.waveform[:1]).waveform()
    torch.testing.assert_close(separated.estimates[MODEL][0], estimates, atol=1e-5, rtol=1e-3)
    sources, mixture = batch.waveform[None, :2], batch.waveform[None, :2].sum(1)
    by_hand = score_systems(sources, {"": estimates[None]}, mixture)[""]
    np.testing.assert_allclose(found.values["sdr/model"][1], by_hand.estimate.sdr[0], atol=0.02)
    np.testing.assert_allclose(found.values["sdr/mixture"][1], by_hand.mixture.sdr[0], atol=1e-4)
    lost = 10 * torch.log10(batch.waveform[0].square().sum() / clean.square().sum())
    np.testing.assert_allclose(found.values["attenuation"][1, 0], lost, atol=0.01)
    # Swapped pictures are the other source's estimate; a wrong picture is a third one.
    swapped = score_systems(sources, {"": estimates.flip(0)[None]}, mixture)[""]
    np.testing.assert_allclose(found.values["sdr/swapped pictures"][1], swapped.estimate.sdr[0], atol=0.02)
    assert not np.allclose(found.values["sdr/wrong picture"], found.values["sdr/model"], atol=1e-3)


def test_a_model_that_hears_only_cannot_be_led_astray(data: Path) -> None:
    parts = [Part(clip, label=clip.label) for clip in read_manifest(str(data))]
    evaluator = SeparationEvaluator(make_model(condition="none"), mix_clips(parts, 2, 2, "any", 0), clean=False)
    values = predict_all(evaluator, OneProcess(CPU), 2, 0).values
    np.testing.assert_allclose(values["sdr/wrong picture"], values["sdr/model"], atol=1e-3)
    np.testing.assert_allclose(values["sdr/swapped pictures"], values["sdr/model"], atol=1e-3)
    assert "attenuation" not in values


@pytest.mark.parametrize("target", ["ratio", "dominance"])
@pytest.mark.parametrize("decoder", ["unet", "release"])
def test_the_oracle_leaves_a_clean_source_alone(target: str, decoder: str) -> None:
    sounds = 0.1 * torch.randn(3, 1, 8000, generator=torch.Generator().manual_seed(0))
    config = SeparatorConfig(encoder=ENCODER, target=target, decoder=decoder)  # type: ignore[arg-type]
    scores = score_systems(sounds, {"": oracle(config, sounds, sounds[:, 0])}, sounds[:, 0])[""]
    assert scores.estimate.sdr.min() > 20
    torch.testing.assert_close(attenuation(sounds, 0.5 * sounds), torch.full((3, 1), 6.0206, dtype=torch.float64))
    assert attenuation(0 * sounds, sounds).isnan().all()


@pytest.fixture(scope="module")
def duets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = str(tmp_path_factory.mktemp("world"))
    generate(BandstandConfig(out=out, clips=4, splits=("duets",), num_workers=0, sheets=False))
    return Path(out) / "duets.csv"


def test_duets_are_scored_against_their_stems(duets: Path, run: Path, tmp_path: Path) -> None:
    result = score(settings(run, duets, mixtures="duets", out=str(tmp_path), examples=0, clean=False))
    # The model hears half a second, in which one of the eight happens to rest.
    assert result.record.coverage.num_scored == 3
    assert list(result.record.coverage.failed.values()) == ["silent reference"]
    assert result.record.left_out == {"silent reference": 1}
    assert "recordings of 2 sources with stems" in result.record.protocol
    assert "boxes of other sources painted" in result.record.protocol
    assert {"SDRi same class", "SDRi different classes"} <= set(result.record.scores)
    ceiling = result.record.baselines["oracle mask"]["SDRi"].score.value
    assert ceiling > 5  # the room's noise is nobody's
    with pytest.raises(ValueError, match="no clip of split all is a recording of 3 sources"):
        evaluate(settings(run, duets, mixtures="duets", sources=3))


def test_pairs_of_a_published_list(data: Path, run: Path, tmp_path: Path) -> None:
    rows = read_manifest(str(data))
    named = [replace(clip, id=f"clip{n}_000000", label=None) for n, clip in enumerate(rows)]
    write_manifest(str(tmp_path / "clips.csv"), named)
    lines = ["source_1,source_2,class_1,class_2,sep_type"]
    lines += ["clip0_000000,clip1_000000,bass_drum,flute,Easy", "clip2_000000,clip3_000000,flute,flute,Hard"]
    lines += ["clip4_000000,gone_000000,flute,flute,Hard"]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    places = {"pairs": str(tmp_path / "pairs.csv"), "out": str(tmp_path / "out")}
    result = score(settings(run, tmp_path / "clips.csv", **places, examples=0, clean=False))
    covered = result.record.coverage
    assert (covered.num_scored, covered.num_official) == (2, 3)
    assert covered.missing == ("clip4_000000 + gone_000000",)
    assert "1 missing: clip4_000000 + gone_000000" in covered.line()
    assert {"SDR same class", "SDR different classes"} <= set(result.record.scores)


@pytest.mark.slow
def test_sound_of_pixels_protocol(data: Path, run: Path, tmp_path: Path) -> None:
    result = score(settings(run, data, protocol="sound_of_pixels", num_mixtures=2, out=str(tmp_path), examples=1))
    assert "Sound of Pixels: 11,025 Hz, 65,535 samples" in result.record.protocol
    mixture, rate = soundfile.read(tmp_path / "best" / "mixture.wav")
    assert (rate, len(mixture)) == (11025, 65535)
    assert result.record.baselines["oracle mask"]["SDRi"].score.value > 3


def test_what_cannot_be_scored_is_counted_and_named(data: Path, run: Path, tmp_path: Path) -> None:
    rows = [replace(clip, label=None) for clip in read_manifest(str(data))[:4]]
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    rows[1] = replace(rows[1], path=str(tmp_path / "broken.mp4"))
    silence = MediaClip(seconds=1.0, levels=(0.0, 0.0))
    rows.append(Clip("silence", str(write_clip(tmp_path / "silence.mp4", silence))))
    rows.append(Clip("mute", str(write_clip(tmp_path / "mute.mp4", replace(silence, audio_codec=None)))))
    write_manifest(str(tmp_path / "clips.csv"), rows)
    result = score(settings(run, tmp_path / "clips.csv", out=str(tmp_path / "out"), clean=False, examples=0))
    covered, plan = result.record.coverage, mix_clips([Part(clip) for clip in rows], 2, 0, "auto", 0)
    causes = {}
    for mixture in plan:
        shown = [part.clip.id for part in mixture.parts + mixture.wrong]
        heard = [part.clip.id for part in mixture.parts]
        first = [name for name in shown if name == rows[1].id or (name == "mute" and name in heard)]
        if first:
            what = "no sound in its window" if first[0] == "mute" else f"{rows[1].id}: "
            assert what in covered.failed[mixture.id]
            causes[mixture.id] = "unreadable"
        elif "silence" in heard:
            assert covered.failed[mixture.id] == "silent reference"
            causes[mixture.id] = "silent reference"
    assert set(covered.failed) == set(causes)
    assert covered.num_scored + len(causes) == covered.num_official == 6
    assert result.record.left_out == {what: list(causes.values()).count(what) for what in set(causes.values())}


def test_settings_are_checked(data: Path, run: Path, tmp_path: Path) -> None:
    words = [str(run), "--data.source", str(data)]
    config = parse_arguments(
        EvaluateSeparationConfig, [*words, "--baselines", "[a=runs/x,b c=runs/y=1]"], positional=("run",)
    )
    assert config.places == {"a": "runs/x", "b c": "runs/y=1"}
    for extra, message in (
        (["--baselines", "[runs/x]"], "'runs/x' must be NAME=PLACE"),
        (["--baselines", "[mixture=runs/x]"], "'mixture', which is always there"),
        (["--sources", "5"], "--sources 5 must be 2 to 4"),
        (["--pairs", "p.csv", "--mixtures", "duets"], "the list defines the mixtures"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_arguments(EvaluateSeparationConfig, [*words, *extra], positional=("run",))
    other = Separator(SeparatorConfig(encoder=replace(ENCODER, image_size=(16, 16)), decoder_dim=32))
    other.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"baselines small: takes inputs of \(\(16, 16\), 8000\)"):
        evaluate(settings(run, data, baselines=(f"small={tmp_path}",)))


@pytest.mark.slow
def test_two_processes_equal_one(data: Path, run: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from deepavfusion.evaluation.config import EvaluationData\n"
        "from deepavfusion.evaluation.evaluate import evaluate\n"
        "from deepavfusion.evaluation.separation.config import EvaluateSeparationConfig\n"
        "data = EvaluationData(sys.argv[2], split='all', num_workers=0)\n"
        "evaluate(EvaluateSeparationConfig(sys.argv[1], data, batch_size=2, examples=1, num_mixtures=5,"
        " out=sys.argv[3]))\n"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(program), str(run), str(data), str(tmp_path / "two")],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    score(settings(run, data, batch_size=2, examples=1, num_mixtures=5, out=str(tmp_path / "one")))
    ids, one, _ = read_samples(str(tmp_path / "one"))
    again, two, _ = read_samples(str(tmp_path / "two"))
    assert ids == again
    for name, values in one.items():
        np.testing.assert_allclose(values, two[name], atol=1e-4, err_msg=name)
