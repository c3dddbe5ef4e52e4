"""Distance fields against distances measured on a fine grid."""

from __future__ import annotations

import numpy as np
import pytest

from deepavfusion.bandstand import shapes

AXIS = np.linspace(-1.5, 1.5, 301, dtype=np.float32)
X, Y = np.meshgrid(AXIS, AXIS)


@pytest.mark.parametrize(
    "field",
    [
        shapes.circle(X, Y, 0.1, -0.2, 0.6),
        shapes.box(X, Y, 0.0, 0.1, 0.7, 0.4, 0.15),
        shapes.capsule(X, Y, -0.5, -0.5, 0.6, 0.3, 0.2),
        shapes.union(shapes.circle(X, Y, -0.4, 0, 0.3), shapes.circle(X, Y, 0.4, 0, 0.3)),
    ],
)
def test_fields_outside_are_distances(field: shapes.Field) -> None:
    inside = np.argwhere(field <= 0) * 0.01 - 1.5
    far = np.argwhere(field > 0.05)[::401]
    for row, column in far:
        measured = np.min(np.linalg.norm(inside - np.array([row, column]) * 0.01 + 1.5, axis=1))
        assert measured == pytest.approx(field[row, column], abs=0.015)


def test_ellipse_is_exact_on_its_edge_and_true_to_scale_near_it() -> None:
    angle = np.linspace(0, 2 * np.pi, 50, dtype=np.float32)
    normal = np.stack([np.cos(angle) / 0.8, np.sin(angle) / 0.3])
    normal /= np.linalg.norm(normal, axis=0)
    for off in (0.0, 0.02, -0.02):
        x, y = 0.8 * np.cos(angle) + off * normal[0], 0.3 * np.sin(angle) + off * normal[1]
        assert shapes.ellipse(x.astype(np.float32), y.astype(np.float32), 0, 0, 0.8, 0.3) == pytest.approx(
            off, abs=4e-3
        )


def test_ink_covers_the_area_of_a_disc() -> None:
    ink = shapes.Ink(X.shape, 100)
    ink.paint(shapes.circle(X, Y, 0.003, 0.004, 0.5), (1.0, 0.5, 0.0))
    assert ink.rgba[..., 3].sum() * 0.01**2 == pytest.approx(np.pi * 0.25, rel=1e-3)
    assert np.allclose(ink.rgba[..., 1], 0.5 * ink.rgba[..., 3])


def test_ink_paints_back_to_front() -> None:
    ink = shapes.Ink((1, 1), 10)
    field = np.full((1, 1), -1, np.float32)
    ink.paint(field, (1.0, 0.0, 0.0))
    ink.paint(field, (0.0, 0.0, 1.0), opacity=0.25)
    assert ink.rgba[0, 0] == pytest.approx([0.75, 0, 0.25, 1])
