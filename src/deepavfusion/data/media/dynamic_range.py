"""Conversion of high dynamic range and wide colours to the standard range, on which models were trained.

PQ and HLG (ITU-R BT.2100) describe far brighter light than a screen's white: without conversion, faces are grey and
reds are brown. In both, white paper has 203 cd/m2 (BT.2408). That becomes 255; darker light keeps its shade, brighter
light is clipped, as by a camera of standard range. Colours of BT.2020 and P3 become those of BT.709, which screens
share with sRGB; colours outside are clipped too.

Shades are written with an exponent of 2.2. This is within a few levels both of sRGB, in which photos are stored, and of
the 2.4 of television (BT.1886); no file says for which of them it was graded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

WHITE = 203.0
"""Light of white paper in cd/m2."""
HLG_PEAK = 1000.0
"""Light of a full HLG signal on the screen that BT.2100 takes it to be graded on, in cd/m2."""
HLG_GAMMA = 1.2
"""Of that screen: the light shown of the light that the camera saw."""
DISPLAY_GAMMA = 2.2
_ROWS_AT_ONCE = 256  # bounds what a frame of 8K takes while it is converted

Transfer = Literal["PQ", "HLG", "standard"]
Primaries = Literal["BT.2020", "P3", "BT.709"]

# By the numbers of ITU-T H.273, which all codecs and containers share.
_TRANSFERS: dict[int, Transfer] = {16: "PQ", 18: "HLG"}
_PRIMARIES: dict[int, Primaries] = {9: "BT.2020", 11: "P3", 12: "P3"}
_UNSPECIFIED = 2

# From linear RGB to that of BT.709, both with the white of D65: the product of the two sets' matrices to and from XYZ.
_TO_BT709: dict[Primaries, npt.NDArray[np.float32]] = {
    "BT.2020": np.array(
        [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]],
        np.float32,
    ),
    "P3": np.array(
        [[1.224940, -0.224940, 0.0], [-0.042057, 1.042057, 0.0], [-0.019638, -0.078636, 1.098274]], np.float32
    ),
}
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020's red, green and blue


@dataclass(frozen=True)
class ColourCoding:
    """What the numbers of a picture stand for, where that is not what a screen shows."""

    transfer: Transfer
    primaries: Primaries

    @property
    def name(self) -> str:
        """In words, such as `PQ, BT.2020`."""
        return ", ".join(part for part in (self.transfer, self.primaries) if part not in ("standard", "BT.709"))


def colour_coding(transfers: list[int | None], primaries: list[int | None]) -> ColourCoding | None:
    """How a picture is coded by what is stated of it; None if a screen can show it as it is.

    Args:
        transfers: transfer characteristics in the numbers of ITU-T H.273, of which the first that says something
            counts: of the frame, of its decoder, of the container.
        primaries: colour primaries likewise. Where none are stated, PQ and HLG have those of BT.2020.
    """
    transfer = _TRANSFERS.get(_first(transfers), "standard")
    stated_primaries = _first(primaries)
    if stated_primaries == _UNSPECIFIED:
        colours: Primaries = "BT.709" if transfer == "standard" else "BT.2020"
    else:
        colours = _PRIMARIES.get(stated_primaries, "BT.709")
    return None if transfer == "standard" and colours == "BT.709" else ColourCoding(transfer, colours)


def stated(source: Any) -> tuple[int | None, int | None]:
    """Transfer characteristics and primaries that a frame or a decoder of PyAV states; None where it cannot."""
    # Frames have them since PyAV 16, decoders always.
    return getattr(source, "color_trc", None), getattr(source, "color_primaries", None)


def standard_range(stored: npt.NDArray[np.uint16], coding: ColourCoding) -> npt.NDArray[np.uint8]:
    """A picture `(H, W, 3)` of RGB as stored, 0 to 65535, in 8-bit RGB as a screen shows it, `(H, W, 3)`."""
    shown = np.empty(stored.shape, np.uint8)
    for top in range(0, len(stored), _ROWS_AT_ONCE):
        light = _light(coding.transfer)[stored[top : top + _ROWS_AT_ONCE]]
        if coding.transfer == "HLG":
            light *= (light @ _LUMINANCE)[..., None] ** np.float32(HLG_GAMMA - 1)
            light *= np.float32(HLG_PEAK / WHITE)
        if coding.primaries != "BT.709":
            light = light @ _TO_BT709[coding.primaries].T
        np.clip(light, 0, 1, out=light)
        shown[top : top + _ROWS_AT_ONCE] = np.rint(255 * light ** np.float32(1 / DISPLAY_GAMMA))
    return shown


@lru_cache(maxsize=3)
def _light(transfer: Transfer) -> npt.NDArray[np.float32]:
    """The light of each of 65536 stored values: 1 is that of white; of HLG what the camera saw, at most 1."""
    value = np.arange(65536) / 65535
    if transfer == "PQ":  # BT.2100, table 4
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = value ** (1 / m2)
        light = 10000 / WHITE * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    elif transfer == "HLG":  # BT.2100, table 5
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12)
    else:
        light = value**DISPLAY_GAMMA
    return light.astype(np.float32)


def _first(numbers: list[int | None]) -> int:
    return next((number for number in numbers if number not in (None, 0, _UNSPECIFIED)), None) or _UNSPECIFIED
