"""Sprites: equally long, inside their patch, unlike each other, and moved by pose alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from deepavfusion.bandstand.looks import LOOKS, Palette, draw, patch_side

PALETTE = Palette((0.8, 0.3, 0.2), (0.2, 0.4, 0.8), (0.1, 0.1, 0.1), (1.0, 1.0, 0.9))


def _extent(mask: NDArray[np.bool_]) -> tuple[int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("diameter", [40, 90])
def test_longest_side_is_the_diameter_whatever_the_look(look: str, diameter: int) -> None:
    assert max(_extent(draw(look, diameter, 0, PALETTE).mask)) == pytest.approx(diameter, abs=max(1.5, 0.02 * diameter))


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("pose", [0.0, 0.5, 1.0])
def test_patch_holds_the_whole_sprite_and_its_halo(look: str, pose: float) -> None:
    for tilt in (-0.22, 0.0, 0.22):
        sprite = draw(look, 80, pose, PALETTE, tilt=tilt)
        edge = np.ones(sprite.mask.shape, bool)
        edge[1:-1, 1:-1] = False
        assert sprite.rgba.shape == (patch_side(80), patch_side(80), 4)
        assert sprite.rgba[edge].max() < 0.01


@pytest.mark.parametrize("look", LOOKS)
def test_a_stroke_raises_and_lights_every_look_alike(look: str) -> None:
    rest, stroke = draw(look, 80, 0, PALETTE), draw(look, 80, 1, PALETTE)
    rise = np.flatnonzero(rest.mask.any(1))[0] - np.flatnonzero(stroke.mask.any(1))[0]
    halo = stroke.rgba[..., :3].mean(-1)[~stroke.mask & (stroke.rgba[..., 3] == 0)]
    assert 4 <= rise <= 16
    assert rest.rgba[..., :3][rest.rgba[..., 3] == 0].max() == 0
    assert 0.5 < halo.max() <= 1


def test_looks_overlap_little_when_laid_upon_each_other() -> None:
    masks = [draw(look, 80, 0, PALETTE).mask for look in LOOKS]
    shared = [np.sum(a & b) / np.sum(a | b) for n, a in enumerate(masks) for b in masks[:n]]
    assert max(shared) < 0.8


def test_mirroring_and_shifting() -> None:
    plain = draw("trumpet", 60, 0.4, PALETTE, light=(0.0, -1.0))
    mirrored = draw("trumpet", 60, 0.4, PALETTE, light=(0.0, -1.0), mirrored=True)
    shifted = draw("trumpet", 60, 0.4, PALETTE, light=(0.0, -1.0), centre=(1.0, 0.0))
    assert mirrored.rgba[:, ::-1] == pytest.approx(plain.rgba, abs=1e-3)
    assert np.mean(shifted.mask[:, 1:] == plain.mask[:, :-1]) > 0.999
