"""The six looks: instruments drawn from distance fields in flat colours with a dark outline.

A look is only a shape: colour, tilt, light and size are drawn independently of it. A stroke moves every look by the
same pose (0 at rest, 1 at the stroke): a hop, a stretch, a glow, and one part of its own that follows the same number.
So the pose shows when a stroke falls and how strong it is, but never which timbre sounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from deepavfusion.bandstand.shapes import Colour, Field, Ink, blend, box, capsule, circle, ellipse, length, shell, union

OUTLINE = 0.07
"""Width of the dark outline, in half diameters."""
HOP = 0.08
STRETCH = 0.10
GLOW: Colour = (1.0, 0.92, 0.62)
REACH = 1.55
"""Half side of a sprite's square patch, in half diameters: room for hop, stretch and halo."""


@dataclass(frozen=True)
class Palette:
    """The colours of one sprite, each red, green, blue in 0 to 1."""

    body: Colour
    trim: Colour
    dark: Colour
    light: Colour


Look = Callable[[Ink, Field, Field, Palette, float], None]
"""Paints a sprite on the ink for coordinates x, y, colours and pose."""


def _guitar(ink: Ink, x: Field, y: Field, colours: Palette, pose: float) -> None:
    body = blend(circle(x, y, 0.0, 0.38, 0.54), circle(x, y, 0.0, -0.20, 0.38), 0.16)
    neck = box(x, y, 0.0, -0.45, 0.09, 0.40)
    head = box(x, y, 0.0, -0.79, 0.17, 0.14, 0.05)
    outline = union(body, neck, head) - np.float32(OUTLINE)
    ink.paint(outline, colours.dark)
    ink.paint(body, colours.body)
    ink.paint(body + np.float32(0.09), tuple(0.5 + 0.5 * c for c in colours.body), 0.35)
    ink.paint(neck, colours.trim)
    ink.paint(head, colours.trim)
    ink.paint(circle(x, y, 0.0, 0.10, 0.18), colours.dark)
    ink.paint(box(x, y, 0.0, 0.56, 0.26, 0.055, 0.03), colours.dark)
    swing = np.float32(0.06 * pose) * np.sin(np.float32(7.0) * (y - np.float32(0.6)))
    for offset in (-0.04, 0.04):
        ink.paint(
            np.maximum(
                np.abs(x - np.float32(offset) - swing) - np.float32(0.016),
                np.abs(y + np.float32(0.12)) - np.float32(0.70),
            ),
            colours.light,
        )


def _drum(ink: Ink, x: Field, y: Field, colours: Palette, pose: float) -> None:
    top, bottom = ellipse(x, y, 0.0, -0.22, 0.80, 0.26), ellipse(x, y, 0.0, 0.55, 0.80, 0.26)
    shellside = union(box(x, y, 0.0, 0.165, 0.80, 0.385), bottom)
    lift = 0.34 * (1 - pose)
    sticks = union(
        capsule(x, y, -0.82, -0.86 - 0.04 * lift, -0.22, -0.26 - lift, 0.05),
        capsule(x, y, 0.82, -0.86 - 0.04 * lift, 0.22, -0.26 - lift, 0.05),
    )
    tips = union(circle(x, y, -0.22, -0.26 - lift, 0.085), circle(x, y, 0.22, -0.26 - lift, 0.085))
    outline = union(shellside, top, sticks, tips) - np.float32(OUTLINE)
    ink.paint(outline, colours.dark)
    ink.paint(shellside, colours.body)
    curve = y - np.float32(0.26) * np.sqrt(np.maximum(1 - (x / np.float32(0.8)) ** 2, 0))
    zigzag = np.abs(_sawtooth(x * np.float32(2.5), 2) - 1) * np.float32(0.58) + np.float32(-0.12)
    lace = (np.abs(curve - zigzag) - np.float32(0.055)) * np.float32(0.6)
    ink.paint(np.maximum(lace, shellside + np.float32(0.02)), colours.light)
    for height in (-0.17, 0.50):
        ink.paint(np.maximum(np.abs(curve - np.float32(height)) - np.float32(0.07), shellside), colours.trim)
    ink.paint(top, colours.trim)
    ink.paint(ellipse(x, y, 0.0, -0.22, 0.70, 0.19), colours.light)
    ink.paint(union(sticks, tips) - np.float32(0.035), colours.dark)
    ink.paint(union(sticks, tips), (0.86, 0.70, 0.46))


def _trumpet(ink: Ink, x: Field, y: Field, colours: Palette, pose: float) -> None:
    y = y - np.float32(0.06)
    t = np.clip((x - np.float32(0.15)) / np.float32(0.72), 0, 1)
    width = np.float32(0.075) + np.float32(0.38 + 0.10 * pose) * t ** np.float32(2.4)
    slope = np.float32(2.4 * 0.40 / 0.72) * t ** np.float32(1.4)
    flare = np.maximum(
        (np.abs(y) - width) / np.sqrt(1 + slope * slope), np.abs(x - np.float32(0.43)) - np.float32(0.44)
    )
    tube = capsule(x, y, -0.78, 0.0, 0.30, 0.0, 0.075)
    mouth = box(x, y, -0.86, 0.0, 0.07, 0.13, 0.05)
    loop = shell(box(x, y, -0.14, 0.22, 0.42, 0.22, 0.2), 0.13)
    rim = capsule(x, y, 0.87, -0.46 - 0.08 * pose, 0.87, 0.46 + 0.08 * pose, 0.055)
    press = 0.08 * pose
    valves = union(*(box(x, y, cx, 0.02, 0.075, 0.30, 0.03) for cx in (-0.34, -0.12, 0.10)))
    caps = union(*(box(x, y, cx, -0.39 + press, 0.09, 0.055, 0.04) for cx in (-0.34, -0.12, 0.10)))
    outline = union(flare, tube, mouth, loop, rim, valves, caps) - np.float32(OUTLINE)
    ink.paint(outline, colours.dark)
    ink.paint(loop, colours.trim)
    ink.paint(union(tube, flare), colours.body)
    ink.paint(np.maximum(union(tube, flare), np.abs(y + np.float32(0.03)) - np.float32(0.025)), colours.light, 0.6)
    ink.paint(mouth, colours.trim)
    ink.paint(valves - np.float32(0.03), colours.dark)
    ink.paint(valves, colours.body)
    ink.paint(caps, colours.light)
    ink.paint(rim, colours.trim)


def _accordion(ink: Ink, x: Field, y: Field, colours: Palette, pose: float) -> None:
    left, right = -0.62 - 0.06 * pose, 0.62 + 0.06 * pose
    keys, buttons = box(x, y, left, 0.0, 0.27, 0.66, 0.10), box(x, y, right, 0.0, 0.27, 0.66, 0.10)
    folds = np.abs(_sawtooth(x * np.float32(7.2 / (1 + 0.1 * pose)), 2) - 1)
    bellows = np.maximum(np.abs(x) - np.float32(0.5), (np.abs(y) - np.float32(0.47) - np.float32(0.09) * folds) * 0.6)
    outline = union(keys, buttons, bellows) - np.float32(OUTLINE)
    ink.paint(outline, colours.dark)
    ink.paint(bellows, colours.trim)
    ink.paint(np.maximum(bellows, (folds - np.float32(0.42)) * np.float32(0.14)), colours.dark, 0.8)
    ink.paint(union(keys, buttons) - np.float32(0.035), colours.dark)
    ink.paint(union(keys, buttons), colours.body)
    board = box(x, y, left - 0.03, 0.0, 0.15, 0.52, 0.03)
    ink.paint(board, colours.light)
    ink.paint(
        np.maximum(board, np.abs(_sawtooth(y + np.float32(0.52), 0.208) - np.float32(0.104)) - np.float32(0.02)),
        colours.dark,
    )
    ink.paint(
        np.maximum(
            box(x, y, left - 0.10, 0.0, 0.09, 0.47), np.abs(_sawtooth(y + np.float32(0.52), 0.208)) - np.float32(0.06)
        ),
        colours.dark,
    )
    u, v = np.abs(x - np.float32(right)) - np.float32(0.10), np.abs(np.abs(y) - np.float32(0.24)) - np.float32(0.14)
    ink.paint(length(u, v) - np.float32(0.07), colours.light)


def _bell(ink: Ink, x: Field, y: Field, colours: Palette, pose: float) -> None:
    t = np.clip((y + np.float32(0.55)) / np.float32(1.10), 0, 1)
    width = np.float32(0.38) + np.float32(0.10) * t + np.float32(0.34) * t ** np.float32(4)
    slope = np.float32(0.09) + np.float32(4 * 0.34 / 1.10) * t ** np.float32(3)
    skirt = np.maximum(
        (np.abs(x) - width) / np.sqrt(1 + slope * slope), np.abs(y - np.float32(0.02)) - np.float32(0.56)
    )
    dome = ellipse(x, y, 0.0, -0.52, 0.40, 0.26)
    rim = box(x, y, 0.0, 0.60, 0.84, 0.10, 0.10)
    ring = shell(circle(x, y, 0.0, -0.80, 0.12), 0.09)
    clapper = circle(x, y, 0.34 * pose, 0.78, 0.15)
    body = union(skirt, dome)
    outline = union(body, rim, ring, clapper) - np.float32(OUTLINE)
    ink.paint(outline, colours.dark)
    ink.paint(ring, colours.trim)
    ink.paint(clapper, colours.trim)
    ink.paint(union(body, rim) - np.float32(0.035), colours.dark)
    ink.paint(body, colours.body)
    ink.paint(np.maximum(body, np.abs(y + np.float32(0.28)) - np.float32(0.055)), colours.trim)
    ink.paint(ellipse(x, y, -0.20, 0.08, 0.06, 0.26), colours.light, 0.75)
    ink.paint(rim, colours.trim)


def _lyre(ink: Ink, x: Field, y: Field, colours: Palette, pose: float) -> None:
    arms = np.maximum(shell(ellipse(x, y, 0.0, 0.05, 0.62, 0.78), 0.19), -np.float32(0.55) - y)
    curls = union(circle(x, y, -0.66, -0.62, 0.17), circle(x, y, 0.66, -0.62, 0.17))
    bar = box(x, y, 0.0, -0.50, 0.72, 0.075, 0.07)
    foot = union(box(x, y, 0.0, 0.80, 0.34, 0.13, 0.06), ellipse(x, y, 0.0, 0.66, 0.44, 0.18))
    outline = union(arms, curls, bar, foot) - np.float32(OUTLINE)
    swing = np.float32(0.07 * pose) * np.cos(np.float32(2.9) * (y - np.float32(0.08)))
    span = np.abs(y - np.float32(0.08)) - np.float32(0.56)
    strings = union(
        *(np.maximum(np.abs(x - np.float32(cx) - swing) - np.float32(0.028), span) for cx in (-0.30, -0.10, 0.10, 0.30))
    )
    ink.paint(strings - np.float32(0.03), colours.dark)
    ink.paint(strings, colours.light)
    ink.paint(outline, colours.dark)
    ink.paint(arms, colours.body)
    ink.paint(foot, colours.body)
    ink.paint(bar, colours.trim)
    ink.paint(curls, colours.trim)
    ink.paint(union(circle(x, y, -0.66, -0.62, 0.06), circle(x, y, 0.66, -0.62, 0.06)), colours.dark)


def _sawtooth(x: Field, period: float) -> Field:
    """x modulo the period, 0 to period; faster than numpy's mod."""
    turns = x / np.float32(period)
    return (turns - np.floor(turns)) * np.float32(period)


LOOKS: dict[str, Look] = {
    "guitar": _guitar,
    "drum": _drum,
    "trumpet": _trumpet,
    "accordion": _accordion,
    "bell": _bell,
    "lyre": _lyre,
}
_EXTENT = {"guitar": 0.99, "drum": 0.945, "trumpet": 1.01, "accordion": 0.965, "bell": 1.01, "lyre": 0.94}
"""Longest side of each drawing over 2, so that all looks of one diameter are equally long."""


@dataclass(frozen=True)
class Sprite:
    """One drawn source: `rgba` float32 `H W 4` (colours times coverage plus halo, then coverage) and its mask."""

    rgba: NDArray[np.float32]
    mask: NDArray[np.bool_]


def draw(
    look: str,
    diameter: float,
    pose: float,
    palette: Palette,
    *,
    tilt: float = 0.0,
    mirrored: bool = False,
    light: tuple[float, float] = (-0.5, -0.8),
    centre: tuple[float, float] = (0.0, 0.0),
) -> Sprite:
    """Draw one look.

    Args:
        look: a name in `LOOKS`.
        diameter: longest side of the resting sprite, in pixels.
        pose: 0 at rest to 1 at the strongest stroke.
        palette: its colours.
        tilt: rotation in radians, clockwise.
        mirrored: left and right exchanged.
        light: where the light comes from; x to the right, y down.
        centre: fraction of a pixel by which the sprite's centre is off the middle of the patch.

    Returns:
        A sprite of side `patch_side(diameter)` pixels whose middle is the sprite's resting centre.
    """
    radius = diameter / 2
    side = patch_side(diameter)
    axis = (np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)) / np.float32(radius)
    px, py = np.meshgrid(axis - np.float32(centre[0] / radius), axis - np.float32(centre[1] / radius))
    cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    x, y = cos * px + sin * py, cos * py - sin * px
    if mirrored:
        x = -x
    # Stretch about the foot, then hop: the sprite leaves the ground at a stroke.
    x = x * np.float32(1 + 0.5 * STRETCH * pose)
    y = (y + np.float32(HOP * pose) - 1) / np.float32(1 + STRETCH * pose) + 1
    x, y = x * np.float32(_EXTENT[look]), y * np.float32(_EXTENT[look])
    ink = Ink(x.shape, radius / _EXTENT[look])
    LOOKS[look](ink, x, y, palette, pose)
    ink.shade(np.float32(1 + 0.25 * pose) + np.float32(0.20) * (np.float32(light[0]) * px + np.float32(light[1]) * py))
    cover = ink.rgba[..., 3]
    if pose:
        # Blurred coverage, not distance: thin parts glow less than thick ones, and every look glows alike.
        soft = Image.fromarray(np.rint(cover * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.16 * diameter))
        halo = np.float32(0.85 * pose) * np.minimum(np.asarray(soft, np.float32) / 140, 1) * (1 - cover)
        # The halo fades to nothing before the patch ends, so that no square edge shows.
        halo *= np.clip((np.float32(REACH - 0.03) - length(px, py)) * 4, 0, 1)
        ink.rgba[..., :3] += halo[..., None] * np.array(GLOW, np.float32)
    np.clip(ink.rgba, 0, 1, out=ink.rgba)
    return Sprite(ink.rgba, cover > 0.5)


def patch_side(diameter: float) -> int:
    """Side in pixels of the square patch that a sprite of this diameter is drawn on; even."""
    return 2 * int(np.ceil(REACH * diameter / 2))
