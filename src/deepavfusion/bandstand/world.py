"""What the world is called and how chance is drawn in it.

`WORLD_VERSION` names the world: the shapes, the sounds, the laws that tie them, the distributions, the splits and the
annotation. Any change that changes a single picture, sound or annotation of a clip there was raises the first number,
and every table that quotes the world is made anew. The second number counts splits that were added: all others stay bit
by bit as they were, and an annotation names the version that brought its split. A test holds a fingerprint of the world
against its version.
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
