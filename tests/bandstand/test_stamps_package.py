"""The cast of stamps on the real package, where it is installed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import generate
from deepavfusion.bandstand.stage import boxes
from deepavfusion.bandstand.stamp_scenes import Stamps
from deepavfusion.bandstand.stamps import load_take
from deepavfusion.bandstand.things import INSTALL, PACKAGE
from deepavfusion.data.clips import find_clips
from deepavfusion.data.scenes.annotation import read_annotation, read_mask

FOLDER = Path("/usr/share/tuxpaint/stamps")

DIGEST = "4f5871562617edb4"
"""Of version 2022.06.04."""


@pytest.fixture(scope="module")
def cast() -> Stamps:
    if not FOLDER.is_dir():
        pytest.skip(f"needs the Debian package {PACKAGE}: {INSTALL}")
    return Stamps(str(FOLDER), None, ("da", "el"))


def test_the_package_has_the_things_that_the_docs_count(cast: Stamps) -> None:
    things = {thing.name: thing for thing in cast.things}
    effects = [recording for thing in things.values() for recording in thing.effects]
    assert len(things) > 400
    assert len(effects) >= 75
    if cast.settings["stamps"] == DIGEST:
        pictures = sum(len(thing.pictures) for thing in things.values())
        names = [len(several) for thing in things.values() for several in thing.names.values()]
        singers = sum(bool(thing.effects) for thing in things.values())
        assert (len(things), pictures, singers, len(effects), sum(names)) == (435, 472, 78, 80, 3832)
    assert not any(picture.path.startswith("symbols/") for thing in things.values() for picture in thing.pictures)
    cow = things["cow"]
    assert cow.theme == "mammals"
    assert len(cow.pictures) == 2  # the white one is called alike
    assert {"fr", "ru", "ro", "ca", "bg", "es", "be", "el"} <= set(cow.names)
    # Badger and beaver, or giraffe and wombat, have one recording, which so says nothing of either.
    assert not any(things[name].effects for name in ("badger", "beaver", "giraffe", "wombat", "iguana", "nandou"))
    assert len({thing.name for thing in things.values() if "da" in thing.names}) > 200
    for recording in effects:
        take = load_take(str(FOLDER / recording.path))
        assert 0.1 < take.duration_seconds < 11
        assert all(start < end for start, end in take.stretches)


def test_clips_of_the_package_match_their_annotations(cast: Stamps, tmp_path: Path) -> None:
    config = BandstandConfig(
        out=str(tmp_path), cast="stamps", stamps=str(FOLDER), splits=("segmentation_test",), clips=4, num_workers=0,
        sheets=False,
    )  # fmt: skip
    kinds = []
    for clip in find_clips(generate(config).manifest):
        truth = read_annotation(clip.path)
        kinds.append(truth.scene_type)
        for number in range(len(truth.annotated_frames)):
            found = boxes(read_mask(clip.path, truth, number), len(truth.sources))
            assert all(source.boxes is None or source.boxes[number] == found[source.number] for source in truth.sources)
        for source in truth.sources:
            assert source.look in cast.classes
            if source.stem is not None:
                stem = soundfile.read(os.path.join(os.path.dirname(clip.path), source.stem))[0]
                inside = np.zeros(len(stem), bool)
                for start, end in source.sounding:
                    inside[round(start * 16000) : round(end * 16000)] = True
                assert np.sum(stem[inside] ** 2) > 0.75 * np.sum(stem**2)
    assert kinds == ["one_effect", "one_name", "two_effects", "effect_and_name"]
