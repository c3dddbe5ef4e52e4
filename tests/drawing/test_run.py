"""Figures are drawn from what they are given, and saved whole."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from deepavfusion.drawing.run import learning_curve_figure, reconstruction_figure


def pixels(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def panels(num_clips: int = 2) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    image = [rng.random((num_clips, 16, 24, 3), dtype=np.float32) for _ in range(3)]
    audio = [rng.random((num_clips, 8, 12), dtype=np.float32) for _ in range(3)]
    image[0][:, :8] = np.nan
    audio[0][:, :4] = np.nan
    return image, audio


def test_reconstruction_has_a_row_per_clip_and_three_columns_per_modality() -> None:
    image, audio = panels()
    figure = reconstruction_figure(["one", "two"], image, audio, "title")
    assert len(figure.axes) == 2 * 6
    assert [axis.get_title() for axis in figure.axes[:6]] == [
        f"{modality}, {what}" for modality in ("picture", "log-mel") for what in ("masked", "reconstruction", "target")
    ]
    assert pixels(figure).std() > 10
    assert len(reconstruction_figure(["one", "two"], None, audio).axes) == 2 * 3


def test_target_panel_shows_its_pixels() -> None:
    image, _ = panels(1)
    image[2][...] = (1.0, 0.0, 0.0)
    axis = reconstruction_figure(["one"], image, None).axes[2]
    np.testing.assert_allclose(axis.images[0].get_array()[0, 0], (1, 0, 0))


def test_spectrogram_axes_are_seconds_and_mel_bands_low_at_the_bottom() -> None:
    _, audio = panels(1)
    axis = reconstruction_figure(["one"], None, audio).axes[2]
    assert axis.images[0].get_extent() == [0, 12 / 64, 0, 8]
    assert axis.images[0].origin == "lower"


def test_missing_streams_are_said() -> None:
    image, audio = panels(2)
    for part in (*image, *audio):
        part[1] = np.nan
    figure = reconstruction_figure(["there", "not there"], image, audio)
    said = [text.get_text() for axis in figure.axes[6:] for text in axis.texts]
    assert said.count("no picture") == 3
    assert said.count("no sound") == 3
    assert pixels(figure).std() > 10


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one clip"):
        reconstruction_figure([], None, None)
    with pytest.raises(ValueError, match="at least one row"):
        learning_curve_figure([])


def test_learning_curve_draws_every_loss_column() -> None:
    rows = [{"step": str(i), "epoch": str(i / 2), "lr": "0.1", "loss": str(2 - i), "loss_image": "1"} for i in range(3)]
    left, right = learning_curve_figure(rows, "run").axes
    assert [line.get_label() for line in left.lines] == ["loss", "loss image"]
    np.testing.assert_allclose(left.lines[0].get_ydata(), [2, 1, 0])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [0.1] * 3)
