"""Signed distance fields of simple shapes, and painting them with smooth edges.

A distance field holds, for every point of a grid, the distance to the edge of a shape: negative inside, positive
outside. All fields here are float32 arrays `H W` over coordinates `x` (to the right) and `y` (down) in units of half
the sprite's diameter, so a sprite fills about -1 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Colour = tuple[float, float, float]


def length(x: Field, y: Field) -> Field:
    """Length `H W` of the vectors (x, y); several times faster than numpy's hypot, which guards against overflow."""
    return np.sqrt(x * x + y * y).astype(np.float32, copy=False)


def circle(x: Field, y: Field, cx: float, cy: float, radius: float) -> Field:
    """Distance `H W` to a disc."""
    return length(x - np.float32(cx), y - np.float32(cy)) - np.float32(radius)


def ellipse(x: Field, y: Field, cx: float, cy: float, rx: float, ry: float) -> Field:
    """Distance `H W` to an ellipse, exact on its edge and to first order near it."""
    u, v = (x - np.float32(cx)) * np.float32(1 / rx), (y - np.float32(cy)) * np.float32(1 / ry)
    level = length(u, v)
    slope = length(u * np.float32(1 / rx), v * np.float32(1 / ry))
    return (level - np.float32(1)) * level * np.reciprocal(slope + np.float32(1e-5))


def box(x: Field, y: Field, cx: float, cy: float, half_x: float, half_y: float, corner: float = 0.0) -> Field:
    """Distance `H W` to a rectangle with round corners."""
    u = np.abs(x - np.float32(cx)) - np.float32(half_x - corner)
    v = np.abs(y - np.float32(cy)) - np.float32(half_y - corner)
    outside = length(u.clip(min=0), v.clip(min=0))
    return outside + np.minimum(np.maximum(u, v), 0) - np.float32(corner)


def capsule(x: Field, y: Field, ax: float, ay: float, bx: float, by: float, radius: float) -> Field:
    """Distance `H W` to a thick line from a to b."""
    dx, dy = bx - ax, by - ay
    u, v = x - np.float32(ax), y - np.float32(ay)
    inverse = np.float32(1 / (dx * dx + dy * dy))
    along: Field = np.clip((u * np.float32(dx) + v * np.float32(dy)) * inverse, np.float32(0), np.float32(1))
    return length(u - along * np.float32(dx), v - along * np.float32(dy)) - np.float32(radius)


def shell(field: Field, thickness: float) -> Field:
    """Distance to the band of the given thickness along a shape's edge."""
    return np.abs(field) - np.float32(thickness / 2)


def union(*fields: Field) -> Field:
    """Distance to all shapes together."""
    together = fields[0]
    for field in fields[1:]:
        together = np.minimum(together, field)
    return together


def blend(a: Field, b: Field, radius: float) -> Field:
    """Union of two shapes whose joint is filled with a curve of about the given radius."""
    overlap = np.maximum(np.float32(radius) - np.abs(a - b), 0) / np.float32(radius)
    return np.minimum(a, b) - overlap * overlap * np.float32(radius / 4)


class Ink:
    """A picture with transparency that shapes are painted on, back to front.

    `rgba` is float32 `H W 4`: colours times coverage (0 to 1), then coverage.
    """

    def __init__(self, shape: tuple[int, ...], pixels_per_unit: float) -> None:
        self.rgba = np.zeros((*shape, 4), np.float32)
        self._sharpness = np.float32(pixels_per_unit)

    def coverage(self, field: Field) -> Field:
        """Share `H W` of each pixel that the shape covers, 0 to 1."""
        return np.clip(np.float32(0.5) - field * self._sharpness, 0, 1)

    def paint(self, field: Field, colour: Colour | Sequence[float], opacity: float = 1.0) -> None:
        """Paint a shape over what is there."""
        cover = (self.coverage(field) * np.float32(opacity))[..., None]
        self.rgba *= 1 - cover
        self.rgba += cover * np.array((*colour, 1.0), np.float32)

    def shade(self, light: Field) -> None:
        """Multiply the colours by a light field `H W`; coverage stays."""
        self.rgba[..., :3] *= light[..., None]
