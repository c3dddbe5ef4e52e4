"""The background of a scene, which carries no information: texture, floor, clutter, colour of the light."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepavfusion.bandstand.shapes import Colour, Ink, box, capsule, circle
from deepavfusion.bandstand.world import STAGE_UNITS

TEXTURES = ("plain", "stripes", "checks", "clouds", "dots")


@dataclass(frozen=True)
class Prop:
    """A piece of clutter: a small shape without meaning, in stage units."""

    kind: str
    x: float
    y: float
    radius: float
    angle: float
    colour: Colour
    outlined: bool


@dataclass(frozen=True)
class Backdrop:
    """Background and light of a clip."""

    texture: str
    colours: tuple[Colour, Colour]
    period: float
    """Of the texture, in stage units."""
    angle: float
    floor: float | None
    """Height of the floor's edge in stage units, or None."""
    props: tuple[Prop, ...]
    light: Colour
    """Colour of the light, near white."""
    light_from: tuple[float, float]
    """Direction the light comes from; x to the right, y down."""
    light_slope: float
    """By how much the light falls off across the stage."""
    seed: int
    """Of the clouds."""

    def illumination(self, x: NDArray[np.float32] | float, y: NDArray[np.float32] | float) -> NDArray[np.float32]:
        """Strength of the light at stage coordinates, about 1."""
        u, v = np.float32(2 / STAGE_UNITS) * x - 1, np.float32(2 / STAGE_UNITS) * y - 1
        slope = np.float32(self.light_slope)
        return np.asarray(1 + slope * (np.float32(self.light_from[0]) * u + np.float32(self.light_from[1]) * v))

    def paint(self, side: int, margin: int, scale: float) -> NDArray[np.float32]:
        """Paint it, lit.

        Args:
            side: of the square canvas in pixels, margins included.
            margin: pixels beyond the stage on each side, for the camera to move in.
            scale: pixels per stage unit.

        Returns:
            float32 `side side 3`, about 0 to 1.
        """
        axis = (np.arange(side, dtype=np.float32) + np.float32(0.5 - margin)) / np.float32(scale)
        x, y = np.meshgrid(axis, axis)
        first, second = (np.array(colour, np.float32) for colour in self.colours)
        canvas = first + self._texture(x, y)[..., None] * (second - first)
        if self.floor is not None:
            canvas[y > self.floor] *= np.float32(0.72)
        ink = Ink(x.shape, scale)
        for prop in self.props:
            cos, sin = np.cos(prop.angle), np.sin(prop.angle)
            dx, dy = x - np.float32(prop.x), y - np.float32(prop.y)
            u, v = np.float32(cos) * dx + np.float32(sin) * dy, np.float32(cos) * dy - np.float32(sin) * dx
            if prop.kind == "disc":
                field = circle(u, v, 0, 0, prop.radius)
            elif prop.kind == "brick":
                field = box(u, v, 0, 0, prop.radius, 0.6 * prop.radius, 0.15 * prop.radius)
            elif prop.kind == "rod":
                field = capsule(u, v, -1.5 * prop.radius, 0, 1.5 * prop.radius, 0, 0.25 * prop.radius)
            else:
                thirds = (u * np.float32(np.cos(a)) + v * np.float32(np.sin(a)) for a in (0.5236, 2.618, -1.5708))
                field = np.maximum.reduce(list(thirds)) - np.float32(0.6 * prop.radius)
            if prop.outlined:
                ink.paint(field - np.float32(1.5), (0.13, 0.11, 0.16))
            ink.paint(field, prop.colour)
        canvas = canvas * (1 - ink.rgba[..., 3:]) + ink.rgba[..., :3]
        return canvas * (self.illumination(x, y)[..., None] * np.array(self.light, np.float32))

    def _texture(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        """Weight of the second colour, 0 to 1."""
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        wave = np.float32(2 * np.pi / self.period)
        u, v = (cos * x + sin * y) * wave, (cos * y - sin * x) * wave
        if self.texture == "plain":
            return np.clip(y / np.float32(STAGE_UNITS), 0, 1)
        if self.texture == "stripes":
            return np.clip(np.float32(0.5) + 3 * np.sin(u), 0, 1)
        if self.texture == "checks":
            return np.clip(np.float32(0.5) + 4 * np.sin(u) * np.sin(v), 0, 1)
        if self.texture == "dots":
            return np.clip(4 * np.sin(u) * np.sin(v) - np.float32(2), 0, 1)
        coarse = np.random.default_rng(self.seed).random((7, 7), dtype=np.float32)
        clouds = Image.fromarray(coarse).resize((x.shape[1], x.shape[0]), Image.Resampling.BICUBIC)
        return np.clip(np.asarray(clouds), 0, 1)


def draw_backdrop(rng: np.random.Generator) -> Backdrop:
    """A backdrop at random, drawn without regard to the sources."""

    def colour(saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
        return colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))

    value = rng.uniform(0.40, 0.85)
    colours = (
        colour((0.10, 0.45), (value, value)),
        colour((0.10, 0.45), (max(value - 0.18, 0.3), min(value + 0.12, 0.95))),
    )
    props = tuple(
        Prop(
            kind=str(rng.choice(["disc", "brick", "rod", "wedge"])),
            x=float(rng.uniform(0, STAGE_UNITS)),
            y=float(rng.uniform(0, STAGE_UNITS)),
            radius=float(rng.uniform(4, 13)),
            angle=float(rng.uniform(0, 2 * np.pi)),
            colour=colour((0.2, 0.7), (0.4, 0.95)),
            outlined=bool(rng.random() < 0.5),
        )
        for _ in range(rng.integers(0, 8))
    )
    angle = rng.uniform(0, 2 * np.pi)
    return Backdrop(
        texture=str(rng.choice(TEXTURES)),
        colours=colours,
        period=float(rng.uniform(14, 48)),
        angle=float(rng.uniform(0, np.pi)),
        floor=float(rng.uniform(95, 140)) if rng.random() < 0.5 else None,
        props=props,
        light=(float(rng.uniform(0.88, 1.06)), float(rng.uniform(0.90, 1.04)), float(rng.uniform(0.84, 1.06))),
        light_from=(float(np.cos(angle)), float(np.sin(angle))),
        light_slope=float(rng.uniform(0.0, 0.22)),
        seed=int(rng.integers(2**31)),
    )
