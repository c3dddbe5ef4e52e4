"""The road from the command to the model is short: who reads the code walks it, so it must not grow by the way."""

import traceback
from pathlib import Path

import pytest

import deepavfusion
from deepavfusion.cli import main
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.models import AudioVisualMAE

PACKAGE = Path(deepavfusion.__file__).parent


def test_six_calls_in_five_files_lead_from_the_command_to_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked: list[tuple[str, str]] = []

    def forward(self: AudioVisualMAE, **inputs: object) -> None:
        stack = [frame for frame in traceback.extract_stack()[:-1] if Path(frame.filename).is_relative_to(PACKAGE)]
        walked.extend((Path(frame.filename).relative_to(PACKAGE).as_posix(), frame.name) for frame in stack)
        raise ValueError("arrived")

    monkeypatch.setattr(AudioVisualMAE, "forward", forward)
    write_sample_clips(tmp_path / "clips", 2, duration_seconds=1.0, size=64)
    words = f"--config tiny --data.source {tmp_path}/clips --data.num_workers 0 --training.batch_size 2"
    assert main(["pretrain", "--run_dir", str(tmp_path / "run"), *words.split()]) == 1
    assert walked == [
        ("cli.py", "main"),
        ("cli.py", "execute"),
        ("verbs/training.py", "_pretrain"),
        ("training/loop.py", "fit"),
        ("training/loop.py", "train_step"),
        ("tasks/pretraining.py", "loss_terms"),
    ]
