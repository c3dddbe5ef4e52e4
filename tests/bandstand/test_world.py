"""Holds the world against its version: whoever changes a picture, a sound or an annotation has to change the version.

Run this file as a program to write the fingerprint of a new version: `python tests/bandstand/test_world.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import make_cast, make_clip
from deepavfusion.bandstand.world import WORLD_VERSION, stream

FINGERPRINT = Path(__file__).parent / "world.json"
CLIPS = [("pretrain", 0), ("pretrain", 1), ("train", 5), ("localization", 2), ("listening", 3), ("twins_test", 6)]
LATER = [("motion_test", 5)]
"""Of splits that a later version brought."""


def _fingerprint(split: str, index: int) -> dict[str, Any]:
    """Annotation, pictures in 8 x 8 fields, sound in 16 stretches of 6 bands: coarse enough for any processor."""
    config = BandstandConfig(out="")
    made = make_clip(config, make_cast(config), split, index)
    frames = made.pictures.frames[[4, 25]].astype(float).reshape(2, 8, 20, 8, 20, 3).mean((2, 4))
    pieces = np.abs(np.fft.rfft(made.sounds.mixture.reshape(16, 4000) * np.hanning(4000))) ** 2
    bands = np.add.reduceat(pieces, [2, 40, 80, 160, 320, 700], axis=1)
    return {
        "truth": json.loads(made.truth.to_json()),
        "pictures": frames.round(1).ravel().tolist(),
        "decibels": (10 * np.log10(bands + 1e4)).round(1).ravel().tolist(),
    }


def _numbers(value: Any) -> tuple[list[float], Any]:
    """All numbers of a tree, in order, and the tree without them."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return [], value
    if isinstance(value, (int, float)):
        return [float(value)], None
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = [(key, _numbers(item)) for key, item in items]
    return [n for _, (numbers, _) in found for n in numbers], [(key, rest) for key, (_, rest) in found]


def test_the_world_is_the_one_its_version_names() -> None:
    stored = json.loads(FINGERPRINT.read_text())
    advice = "the world has changed: raise WORLD_VERSION, run `python tests/bandstand/test_world.py`, renew the tables"
    assert stored["world"] == WORLD_VERSION, advice
    for split, index in CLIPS + LATER:
        found, kept = _fingerprint(split, index), stored["clips"][f"{split} {index}"]
        for part, tolerance in (("truth", 1.01), ("pictures", 1.0), ("decibels", 0.3)):
            (numbers, rest), (old_numbers, old_rest) = _numbers(found[part]), _numbers(kept[part])
            assert rest == old_rest, advice
            assert np.abs(np.array(numbers) - old_numbers).max() < tolerance, advice


def test_streams_of_chance_are_independent() -> None:
    keys = [(0, "train", 0, "scene"), (1, "train", 0, "scene"), (0, "val", 0, "scene"), (0, "train", 1, "scene")]
    draws = [stream(*key).standard_normal(4000) for key in [*keys, (0, "train", 0, "classes")]]
    assert np.abs(np.corrcoef(draws) - np.eye(5)).max() < 0.08
    assert np.array_equal(stream(*keys[0]).random(3), stream(*keys[0]).random(3))


if __name__ == "__main__":
    clips = {f"{split} {index}": _fingerprint(split, index) for split, index in CLIPS + LATER}
    FINGERPRINT.write_text(json.dumps({"world": WORLD_VERSION, "clips": clips}, separators=(",", ":")) + "\n")
