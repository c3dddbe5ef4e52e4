"""Version of the world and its random generators.

`WORLD_VERSION` stands for the shapes, the sounds, the relations between them, the distributions, the splits and the
annotation. A change that alters a frame, a sound or an annotation of an existing clip raises the first number, and
every table measured on the world is made anew. The second number counts added splits: all others stay bit-equal, and an
annotation names the version that brought its split. A test checks a fingerprint of clips against the version.
"""

from __future__ import annotations

import zlib

import numpy as np

WORLD_VERSION = "1.1"
FIRST_VERSION = "1"
"""The version whose clips are the same under the present one."""
STAGE_UNITS = 160.0
"""Width and height of the stage in its own units; a picture of 160 pixels shows one unit per pixel."""


def stream(seed: int, split: str, index: int, purpose: str) -> np.random.Generator:
    """The source of chance for one purpose in one clip, independent of all others.

    Args:
        seed: of the data set, not negative.
        split: name of the split.
        index: of the clip, or of its group where clips share a picture.
        purpose: what is drawn, such as "scene" or "backdrop".
    """
    key = zlib.crc32(f"bandstand {FIRST_VERSION}/{split}/{purpose}".encode())
    return np.random.default_rng([seed, key, index])
