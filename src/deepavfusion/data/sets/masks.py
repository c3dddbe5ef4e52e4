"""Mask files: binary masks, and semantic masks as class numbers or colours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from deepavfusion.data.locations import check_file


def palette(num_classes: int) -> npt.NDArray[np.uint8]:
    """The colours `(num_classes, 3)` of AVSBench's `labels_rgb`, background black: the colour map of PASCAL VOC.

    Bit 3k + c of a class number is bit 7 - k of its colour's channel c.
    """
    numbers = np.arange(num_classes)[:, None]
    colours = np.zeros((num_classes, 3), np.int64)
    for k in range(8):
        colours |= (numbers >> (3 * k + np.arange(3)) & 1) << (7 - k)
    return colours.astype(np.uint8)


def read_binary_mask(path: str) -> npt.NDArray[np.bool_]:
    """A mask `(H, W)`, True where any channel is not 0; an alpha channel is not looked at.

    Raises:
        ValueError: not a readable image.
    """
    pixels = _pixels(path)
    return pixels != 0 if pixels.ndim == 2 else (pixels != 0).any(-1)


def read_semantic_mask(path: str, num_classes: int = 71) -> npt.NDArray[np.uint8]:
    """Class numbers `(H, W)`, 0 the background: a file of numbers (grey or with a palette), or one of colours.

    Args:
        path: in `labels_semantic` or `labels_rgb`.
        num_classes: background included.

    Raises:
        ValueError: not a picture, or it holds a number or a colour that no class has.
    """
    pixels = _pixels(path)
    if pixels.ndim == 3:
        codes = pixels.astype(np.int64) @ (1 << 16, 1 << 8, 1)
        known = palette(num_classes).astype(np.int64) @ (1 << 16, 1 << 8, 1)
        order = np.argsort(known)
        numbers = order[np.searchsorted(known[order], codes).clip(max=num_classes - 1)]
        strange = known[numbers] != codes
        if strange.any():
            raise ValueError(
                f"{path}: the colour {pixels[strange][0].tolist()} belongs to none of the {num_classes} classes"
            )
        return numbers.astype(np.uint8)
    if pixels.max(initial=0) >= num_classes:
        raise ValueError(f"{path}: holds class {pixels.max()}, but there are {num_classes} with the background")
    return pixels.astype(np.uint8)


def _pixels(path: str) -> npt.NDArray[np.uint8]:
    """Stored values `(H, W)` or, of a coloured picture, `(H, W, 3)`."""
    try:
        check_file(path)
        with Image.open(path) as image:
            return np.asarray(image if image.mode in ("1", "L", "P", "I", "I;16") else image.convert("RGB"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, SyntaxError) as error:  # PIL raises SyntaxError for broken PNG files
        raise ValueError(f"{path}: not a readable image ({error})") from None
