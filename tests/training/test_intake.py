"""Training on nothing is a failure: clips that cannot be read, that show nothing, that are silent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from deepavfusion.cli import main
from deepavfusion.data.clips import Clip, find_clips, write_manifest
from deepavfusion.tasks.classification import Classification
from deepavfusion.training import checkpoints
from deepavfusion.training.guards import FailureBudgetError
from deepavfusion.training.intake import NothingLearnedError
from deepavfusion.training.loop import fit
from tests.tasks import classification_runs, segmentation_runs
from tests.training.test_loop import make, quiet, rows, run, stop_at
from tests.training.toy_task import ToyTask

TRAINED = {
    "pretrain": ["--config", "tiny"],
    "train classification": ["--recipe", "probe"],
    "train localization": ["--recipe", "supervised"],
    "train separation": ["--decoding.decoder_dim", "32"],
    "train segmentation": ["--recipe", "frozen"],
}


def test_nothing_read_is_a_failure_at_any_count(tmp_path: Path) -> None:
    for count in (1, 8, 19):
        config = make(tmp_path / str(count), epochs=1, max_failures=1.0)
        broken = [f"clip{i}" for i in range(count)]
        with pytest.raises(FailureBudgetError, match=r"none of \d+ clips drawn could be read.*made to fail.*failures"):
            run(config, num_clips=count, broken=broken)
        assert not (tmp_path / str(count) / "model").exists()
        assert checkpoints.latest(tmp_path / str(count) / "checkpoints") is None


def test_a_stop_does_not_hide_it(tmp_path: Path) -> None:
    config = make(tmp_path / "run", epochs=2, max_failures=1.0, batch_size=2)
    broken = [f"clip{i}" for i in range(8)]
    task = ToyTask(config, num_clips=8, broken=broken)
    stop_at(task, 0)
    assert fit(task, config, quiet()).status == "preempted"
    with pytest.raises(FailureBudgetError, match="none of 8 clips drawn could be read"):
        run(config, num_clips=8, broken=broken)


def test_a_batch_without_a_readable_clip_gives_zero_loss_not_nan(tmp_path: Path) -> None:
    config = make(tmp_path / "run", epochs=2, max_failures=1.0, batch_size=1, log_every=1)
    result = run(config, num_clips=2, broken=["clip0"])
    assert sorted(float(row["loss"]) > 0 for row in rows(tmp_path / "run")) == [False, False, True, True]
    assert result.num_failures == 2


class SilentTask(ToyTask):
    """No sample has sound."""

    def counts(self, batch):  # type: ignore[no-untyped-def]
        batch.audio_present[:] = False
        return super().counts(batch)


def test_sound_that_is_needed_and_a_term_that_no_clip_has(tmp_path: Path) -> None:
    config = make(tmp_path / "silent", epochs=2)
    with pytest.raises(NothingLearnedError, match="nowhere: none of 24 clips drawn has sound; take other clips"):
        fit(SilentTask(config), config, quiet())
    assert not (tmp_path / "silent" / "model").exists()
    task, console = SilentTask(replace(config, run_dir=str(tmp_path / "unneeded"))), quiet()
    task.needs = {}
    assert fit(task, task.config, console).status == "finished"
    assert "warning: loss_audio was a mean over no clip at all" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_run_continued_from_an_older_checkpoint_has_no_count_and_ends(tmp_path: Path) -> None:
    config = make(tmp_path / "run", epochs=2)
    task = SilentTask(config)
    stop_at(task, 0)
    assert fit(task, config, quiet()).status == "preempted"
    path = checkpoints.latest(tmp_path / "run" / "checkpoints")
    assert path is not None
    content = {key: value for key, value in checkpoints.load(path).items() if key not in ("intake", "format", "step")}
    checkpoints.save(path.parent, 1, content, 1)
    assert fit(SilentTask(config), config, quiet()).status == "finished"


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world whose films hold no film, and an encoder."""
    folder = tmp_path_factory.mktemp("broken")
    segmentation_runs.write_world(folder / "world", 8, "segmentation_train")
    for film in (folder / "world").rglob("*.mp4"):
        film.write_bytes(b"not a film" * 100)
    clips = find_clips(str(folder / "world" / "manifest.csv"))
    write_manifest(str(folder / "world" / "manifest.csv"), [replace(c, label="ab"[i % 2]) for i, c in enumerate(clips)])
    segmentation_runs.write_encoder(folder / "encoder")
    return folder


@pytest.mark.parametrize("command", TRAINED)
def test_every_training_command_fails_when_no_clip_can_be_read(
    command: str, broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*command.split(), *TRAINED[command], "--data.source", str(broken / "world" / "manifest.csv")]
    words += ["--run_dir", str(tmp_path / "run"), "--training.batch_size", "4", "--optim.epochs", "1"]
    words += ["--data.num_workers", "0", "--training.device", "cpu", "--optim.unusual_blr", "true"]
    words += [] if command == "pretrain" else ["--from", str(broken / "encoder")]
    assert main(words) == 1
    told = capsys.readouterr()
    assert "clips drawn could be read" in told.err
    assert "trained model" not in told.out
    assert not (tmp_path / "run" / "model").exists()


def write_track(path: Path, picture: bool, sound: bool) -> None:
    """A second of film with one of its tracks."""
    with av.open(str(path), "w") as container:
        if picture:
            video = container.add_stream("libx264", rate=10)
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
            for i in range(10):
                pixels = np.full((64, 64, 3), 20 * i, np.uint8)
                container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
            container.mux(video.encode(None))
        if sound:
            audio = container.add_stream("aac", rate=16000, layout="mono")
            tone = np.sin(np.arange(16000) / 5).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(tone[None], "fltp", "mono")
            frame.sample_rate = 16000
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


@pytest.mark.parametrize(
    ("command", "picture", "told"),
    [
        ("pretrain --config tiny", True, "has sound; pre-training needs image and sound"),
        ("pretrain --config tiny", False, "has an image; pre-training needs"),
        ("train classification --recipe probe", True, "has sound; take --modalities image"),
        ("train classification --recipe probe", False, "has an image; take --modalities audio"),
        ("train separation", True, "has sound; separation needs image and sound"),
        ("train localization --recipe self_supervised", True, "has sound; localization needs image and sound"),
    ],
)
def test_clips_that_lack_what_the_task_needs(
    command: str, picture: bool, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [Clip(f"clip{i}", str(tmp_path / f"clip{i}.mp4"), label="ab"[i % 2]) for i in range(4)]
    for clip in clips:
        write_track(Path(clip.path), picture, not picture)
    write_manifest(str(tmp_path / "clips.csv"), clips)
    classification_runs.write_encoder(tmp_path / "encoder", image_size=(32, 32))
    words = [*command.split(), "--data.source", str(tmp_path / "clips.csv"), "--run_dir", str(tmp_path / "run")]
    words += ["--training.batch_size", "4", "--optim.epochs", "1", "--training.device", "cpu"]
    words += ["--data.num_workers", "0", "--optim.unusual_blr", "true"]
    words += [] if "pretrain" in command else ["--from", str(tmp_path / "encoder")]
    assert main(words) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run" / "model").exists()
    if "classification" in command:  # the remedy is one
        assert main([*words, "--modalities", "image" if picture else "audio", "--run_dir", str(tmp_path / "b")]) == 0


def test_audit_shard_embed_and_evaluate_of_nothing_readable_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = classification_runs.write_data(tmp_path / "data")
    encoder = classification_runs.write_encoder(tmp_path / "encoder")
    config = classification_runs.make("probe", source, encoder, tmp_path / "run", optim={"epochs": 1})
    fit(Classification(config), config, quiet())
    for clip in find_clips(str(source)):
        Path(clip.path).write_bytes(b"not a film" * 100)
    clips, work = str(source), ["--num_workers", "0"]
    commands = {
        "audit": ["audit", clips, "--out", str(tmp_path / "audit.csv"), *work],
        "shard": ["shard", clips, str(tmp_path / "shards"), *work],
        "shard a part": ["shard", clips, str(tmp_path / "parts"), "--part", "1/2", "--clips_per_shard", "4", *work],
        "embed": ["embed", "--from", str(encoder), "--data.source", clips, "--out", str(tmp_path / "features.npz")],
        "evaluate": ["evaluate", "classification", str(tmp_path / "run"), "--data.source", clips],
    }
    for name in ("embed", "evaluate"):
        commands[name] += ["--data.split", "all", "--data.num_workers", "0", "--device", "cpu"]
    commands["embed a part"] = [*commands["embed"], "--part", "1/2", "--clips_per_part", "4"]
    commands["embed a part"][commands["embed a part"].index("--out") + 1] = str(tmp_path / "part.npz")
    for name, words in commands.items():
        assert main(words) == 1, name
        error = capsys.readouterr().err
        assert "could be read" in error, name
        assert "Traceback" not in error
    assert (tmp_path / "audit.csv").is_file()  # it says of each clip why
    assert not (tmp_path / "shards" / "shards.json").exists()
    assert not (tmp_path / "features.npz").exists()
