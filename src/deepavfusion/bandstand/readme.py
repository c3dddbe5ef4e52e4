"""The README that is written into every folder of generated clips."""

from __future__ import annotations

from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.splits import Cast
from deepavfusion.bandstand.world import WORLD_VERSION

_TEXT = """# Bandstand, world {world}, cast {cast}, seed {seed}

Synthetic clips with exact ground truth, written by `deepavfusion bandstand`. Every clip is
{seconds:g} s long: {size} x {size} pixels at {frame_rate:g} frames/s (H.264), mono sound at {sample_rate} Hz (AAC).
The files depend only on the seed, the split, the clip's number and the version of the generator (world).

| file | content |
|---|---|
| `manifest.csv`, `SPLIT.csv` | one row per clip, of all splits and of one |{labelled}
| `SPLIT/ID.mp4` | the clip |
| `SPLIT/ID.json` | its annotation: sources, boxes, strokes, sounding intervals, gains |
| `SPLIT/ID/stem_N.flac`, `noise.flac` | source N alone, and the room's noise; they add up to the mixture |
| `SPLIT/ID/mask_FFF.png` | frame FFF: 0, or 1 + the number of the source seen there |
| `classes.png`, `scenes.png` | contact sheets |
| `world.json` | the settings |

| split | content |
|---|---|
{splits}

{origin}`deepavfusion.data.scenes.annotation.read_annotation` reads the JSON files; its docstrings explain the fields.
"""


def describe(cast: Cast, config: BandstandConfig) -> str:
    """The README's text."""
    facts = sorted({fact for split in cast.splits.values() for fact in split.labels})
    return _TEXT.format(
        world=WORLD_VERSION,
        cast=cast.name,
        seed=config.seed,
        seconds=config.seconds,
        size=config.size,
        frame_rate=config.frame_rate,
        sample_rate=config.sample_rate,
        labelled="".join(f"\n| `SPLIT_{fact}.csv` | the same clips labelled by {fact} |" for fact in facts),
        origin=f"## Sources\n\n{cast.origin}\n\n" if cast.origin else "",
        splits="\n".join(f"| `{split.name}` | {split.purpose} |" for split in cast.splits.values()),
    )
