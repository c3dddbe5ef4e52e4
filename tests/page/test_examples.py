"""The examples: readable, all in their folder, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import make_cast, make_clip
from deepavfusion.inference.inputs import open_recording
from deepavfusion.page.examples import SECONDS, SEED, SIZE, make_examples


def test_examples_can_be_seen_and_heard(tmp_path: Path) -> None:
    examples = make_examples(tmp_path / "a")
    assert len({example.title for example in examples}) == 5
    for example in examples:
        given = str(example.video) if example.video else (str(example.photo), str(example.sound))
        with open_recording(given) as recording:
            assert recording.info.has_picture
            assert recording.info.has_sound
            assert abs(recording.info.duration_seconds - SECONDS) < 0.2
        assert example.poster.stat().st_size < 40_000
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {tmp_path / "a"}
    world = BandstandConfig(out=str(tmp_path), size=SIZE, seconds=SECONDS, seed=SEED)
    clip = make_clip(world, make_cast(world), "test", 1)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "a" / "photo.wav", dtype="int16")[0], clip.sounds.mixture)
