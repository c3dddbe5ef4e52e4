"""Compares the decoded clips of a Bandstand world with their annotations.

    deepavfusion bandstand world --clips 300 --splits [localization,duets,segmentation_test]
    python scripts/bandstand_truth.py world --out docs/results/bandstand_truth.json

A world of stamps needs the folders that it was made of, `--stamps` and `--backgrounds`.

For every clip: whether boxes are the tight ones of the masks; whether the stems and the room's noise that were written
add up to the mixture that was encoded, sample by sample, and how far the decoded sound is from it (signal-to-noise
ratio after AAC); which share of a source's energy falls into its sounding intervals. The world must have been written
with stems and masks.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from deepavfusion.atomic import write_text
from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import make_cast, make_clip
from deepavfusion.bandstand.stage import boxes
from deepavfusion.data.clips import find_clips
from deepavfusion.data.media import MediaFile
from deepavfusion.data.scenes.annotation import ClipTruth, read_annotation, read_mask


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", type=Path, help="folder of the world")
    parser.add_argument("--clips", type=int, default=300, help="how many clips, evenly over the manifest")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--stamps", help="folder of the stamps, for a world of them")
    parser.add_argument("--backgrounds", help="its folder of photographs, if it has any")
    words = parser.parse_args()
    every = find_clips(str(words.world / "manifest.csv"))
    clips = [every[i * len(every) // min(words.clips, len(every))] for i in range(min(words.clips, len(every)))]
    ratios: list[float] = []
    shares: list[float] = []
    num_boxes = exact = equal = 0
    world = json.loads((words.world / "world.json").read_text())
    config = BandstandConfig(
        out=str(words.world),
        seed=world["seed"],
        cast=world["cast"],
        stamps=words.stamps,
        backgrounds=words.backgrounds,
        held_out_languages=tuple(world.get("held_out_languages", BandstandConfig.held_out_languages)),
    )
    cast = make_cast(config)
    for clip in clips:
        truth = read_annotation(clip.path)
        good, all_of_them = _boxes(clip.path, truth)
        num_boxes, exact = num_boxes + all_of_them, exact + good
        stems = {s.number: _wave(clip.path, s.stem) for s in truth.sources if s.stem}
        shares += [_inside(stems[s.number], s.sounding, truth.sample_rate) for s in truth.sources if s.stem]
        if stems and truth.noise_stem:
            total = sum(stems.values()) + _wave(clip.path, truth.noise_stem)
            made = make_clip(config, cast, truth.split, truth.index).sounds.mixture
            equal += bool(np.array_equal(np.rint(total * 32768), made))
            with MediaFile(clip.path) as file:
                heard = file.sound(0.0, len(total) / truth.sample_rate, truth.sample_rate)
            ratios.append(float(10 * np.log10(np.mean(total**2) / np.mean((heard - total) ** 2))))
    record = {
        "world": world["world"],
        "cast": world["cast"],
        "num_clips": len(clips),
        "num_boxes": num_boxes,
        "boxes_exact": exact,
        "num_mixtures": len(ratios),
        "mixtures_exact": equal,
        "snr_median_db": float(np.median(ratios)),
        "snr_worst_db": float(np.min(ratios)),
        "num_stems": len(shares),
        "energy_inside_mean": float(np.mean(shares)),
        "energy_inside_least": float(np.min(shares)),
    }
    write_text(words.out, json.dumps(record, indent=1) + "\n")
    sys.stdout.write(json.dumps(record, indent=1) + "\n")
    return 0


def _boxes(path: str, truth: ClipTruth) -> tuple[int, int]:
    """How many boxes are the tight ones of the mask, and how many there are."""
    exact = count = 0
    for place in range(len(truth.annotated_frames)):
        found = boxes(read_mask(path, truth, place), len(truth.sources))
        for source in truth.sources:
            if source.boxes is not None:
                count += 1
                exact += found[source.number] == source.boxes[place]
    return exact, count


def _wave(path: str, stem: str) -> NDArray[np.float64]:
    wave: NDArray[np.float64] = soundfile.read(Path(path).parent / stem)[0]
    return wave


def _inside(wave: NDArray[np.float64], intervals: object, rate: int) -> float:
    """Share of a sound's energy that lies in its intervals."""
    sounding = np.zeros(len(wave), bool)
    for start, end in intervals:  # type: ignore[attr-defined]
        sounding[round(start * rate) : round(end * rate)] = True
    return float(np.sum(wave[sounding] ** 2) / np.sum(wave**2))


if __name__ == "__main__":
    sys.exit(main())
