"""Arrays are heard and seen as what they are, and what could be meant in two ways is refused with the way out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deepavfusion.data.crops import FrameCrop
from deepavfusion.inference.inputs import Arrays, open_recording

RATE = 16000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(4000) / RATE)).astype(np.float32)
PICTURE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
WHOLE = FrameCrop.whole((30, 40))


def heard(sound: Any, rate: Any = RATE) -> np.ndarray:
    with open_recording(Arrays(sound=sound, rate=rate)) as recording:
        return recording.sound(0.0, 9.0)


def seen(pictures: Any, fps: Any = None) -> np.ndarray:
    with open_recording(Arrays(pictures, fps)) as recording:
        return recording.frames([0.0], WHOLE)[0]


def at_full_scale(kind: Any) -> np.ndarray:
    return np.round(TONE * -float(np.iinfo(kind).min)).astype(kind)


TONES: dict[str, Any] = {
    "float64": TONE.astype(np.float64),
    "float16": TONE.astype(np.float16),
    "long double": TONE.astype(np.longdouble),
    "int8": at_full_scale(np.int8),
    "int16": at_full_scale(np.int16),
    "int32": at_full_scale(np.int32),
    "float32, foreign byte order": TONE.astype(np.dtype(np.float32).newbyteorder()),
    "int16, foreign byte order": at_full_scale(np.int16).astype(np.dtype(np.int16).newbyteorder()),
    "int32, foreign byte order": at_full_scale(np.int32).astype(np.dtype(np.int32).newbyteorder()),
    "every other sample": np.repeat(TONE, 2)[::2],
    "backwards": TONE[::-1].copy()[::-1],
    "not to be written": np.broadcast_to(TONE[:, None], (4000, 3)),
    "one channel": TONE[:, None],
    "stereo": np.stack([TONE, TONE], axis=1),
    "transposed": np.stack([TONE, TONE]).T,
    "eight channels": np.repeat(TONE[:, None], 8, axis=1),
    "list": TONE.tolist(),
    "tensor": torch.from_numpy(TONE),
    "tensor of two channels": torch.from_numpy(TONE).expand(2, -1),
    "tensor of float16": torch.from_numpy(TONE).half(),
    "tensor of bfloat16": torch.from_numpy(TONE).bfloat16(),
    "tensor of int16": torch.from_numpy(at_full_scale(np.int16)),
    "tensor with a gradient": torch.from_numpy(TONE).clone().requires_grad_(),
    "tensor, transposed": torch.from_numpy(np.stack([TONE, TONE], axis=1)).T,
}


@pytest.mark.parametrize("name", TONES)
def test_every_type_of_sound_is_heard_alike(name: str) -> None:
    found = heard(TONES[name])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, TONE, atol=6e-3 if name in ("int8", "tensor of bfloat16") else 1e-3)


def test_channels_are_averaged_and_overshoots_cut() -> None:
    left_only = np.stack([at_full_scale(np.int16), np.zeros(4000, np.int16)], axis=1)
    np.testing.assert_allclose(heard(left_only), TONE / 2, atol=1e-4)
    assert np.abs(heard(TONE * 3)).max() == 1.0  # as of a file whose decoder gives floats beyond full scale
    np.testing.assert_allclose(heard(TONE * 3)[:5], np.clip(TONE * 3, -1, 1)[:5])
    assert not heard(np.zeros(4000, np.int32)).any()
    quiet = np.full(4000, 512, np.int32)  # the lowest bit but one of 24: 2 ** -22
    np.testing.assert_allclose(heard(quiet), 2.0**-22, rtol=1e-4)


def test_rates_of_every_number() -> None:
    for rate in (np.int64(RATE), np.float32(RATE), float(RATE)):
        np.testing.assert_allclose(heard(TONE, rate), TONE)
    assert len(heard(np.zeros((44100, 2)), 44100)) == 16000


SOUNDS_THAT_ARE_REFUSED: list[tuple[Any, Any, str]] = [
    (np.stack([TONE, TONE]), RATE, r"shape \(2, 4000\) would be 4000 channels of 2 samples.*transpose"),
    (TONE[None], RATE, r"4000 channels of 1 samples.*transpose"),
    (np.zeros((6, 4000), np.int16), RATE, "transpose"),
    (torch.zeros(4000, 2), RATE, r"shape \(4000, 2\) would be 4000 channels of 2 samples.*transpose"),
    (np.zeros((4000, 9)), RATE, "9 channels, more than the 8"),
    (torch.zeros(64, 4000), RATE, "64 channels, more than the 8"),
    (np.zeros((1, 4000, 2)), RATE, r"it is \(n,\)"),
    (np.float32(0.5), RATE, r"shape \(\), it is"),
    (np.zeros((0, 2)), RATE, r"shape \(0, 2\), it is"),
    (torch.zeros(2, 0), RATE, r"shape \(2, 0\), it is"),
    (TONE * 32767, RATE, "floats from -16383.* to 16383.*, they are from -1 to 1: divide by"),
    (np.round(TONE * 127 + 128), RATE, "they are from -1 to 1"),
    (TONE.astype(np.float64) * 2**31, RATE, "they are from -1 to 1"),
    (torch.from_numpy(TONE) * 32767, RATE, "they are from -1 to 1"),
    (at_full_scale(np.int16).astype(np.int32), RATE, "int32 that never leaves the range of 16 bits"),
    (at_full_scale(np.int16).astype(np.int64), RATE, "type int64.*give int16"),
    (at_full_scale(np.int16).tolist(), RATE, "type int64"),
    ((TONE * 127 + 128).astype(np.uint8), RATE, "type uint8.*subtract 128"),
    (np.zeros(4000, np.uint16), RATE, "type uint16"),
    (TONE > 0, RATE, "type bool"),
    (TONE.astype(complex), RATE, "type complex128"),
    (np.where(np.arange(4000) == 7, np.nan, TONE), RATE, "not finite"),
    (np.where(np.arange(4000) == 7, -np.inf, TONE), RATE, "not finite"),
    (np.array(["a", "b"]), RATE, "not of numbers"),
    ([TONE, TONE[:5]], RATE, "make no array"),
    ({"array": TONE}, RATE, "type dict"),
    ("a.wav", RATE, "type str, it is an array; a file is given by its path alone"),
    (b"RIFF", RATE, "type bytes, it is an array"),
    (np.ma.masked_greater(TONE, 0.4), RATE, "masked values"),
    (torch.zeros(4000).to_sparse(), RATE, "without plain numbers"),
    (TONE, "44100", "whole number of samples per second up to 768000, got '44100'"),
    (TONE, 44.1, "got 44.1"),
    (TONE, True, "got True"),
    (TONE, None, "got None"),
    (TONE, 0, "got 0"),
    (TONE, -RATE, "got -16000"),
    (TONE, float("nan"), "got nan"),
    (TONE, float("inf"), "got inf"),
    (TONE, 10**6, "got 1000000"),
    (TONE, [RATE], r"got \[16000\]"),
]


@pytest.mark.parametrize(("sound", "rate", "message"), SOUNDS_THAT_ARE_REFUSED)
def test_sounds_that_are_refused(sound: Any, rate: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        heard(sound, rate)
    assert str(caught.value).startswith("array: ")
    assert "\n" not in str(caught.value)


PICTURES: dict[str, Any] = {
    "float32": PICTURE.astype(np.float32) / 255,
    "float64": PICTURE / 255,
    "float16": (PICTURE / 255).astype(np.float16),
    "foreign byte order": (PICTURE / 255).astype(np.dtype(np.float64).newbyteorder()),
    "turned about in memory": np.asfortranarray(PICTURE),
    "every other row": np.repeat(PICTURE, 2, axis=0)[::2],
    "one frame": PICTURE[None],
    "image": Image.fromarray(PICTURE),
    "one image in a list": [Image.fromarray(PICTURE)],
    "image with alpha": Image.fromarray(np.dstack([PICTURE, PICTURE[..., 0]])),
    "tensor": torch.from_numpy(PICTURE).movedim(2, 0),
    "tensor of float16": torch.from_numpy(PICTURE).movedim(2, 0).half() / 255,
    "tensor of one frame": torch.from_numpy(PICTURE).movedim(2, 0)[None],
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_type_of_picture_is_seen_alike(name: str) -> None:
    found = seen(PICTURES[name])
    np.testing.assert_allclose(found.astype(int), PICTURE, atol=1 if "16" in name else 0)


def test_films() -> None:
    film = np.stack([PICTURE, PICTURE[::-1]])
    for pictures in (film, torch.from_numpy(film).movedim(-1, 1), [Image.fromarray(frame) for frame in film]):
        with open_recording(Arrays(pictures, 2)) as recording:
            assert recording.info.duration_seconds == 1.0
            np.testing.assert_array_equal(recording.frames([0.1, 0.6], WHOLE), film)
    turned = Image.fromarray(PICTURE)
    turned.getexif()[0x112] = 6
    with open_recording(Arrays([turned, turned], 2)) as recording:
        assert (recording.info.height, recording.info.width) == (40, 30)


PICTURES_THAT_ARE_REFUSED: list[tuple[Any, Any, str]] = [
    (PICTURE.transpose(2, 0, 1), None, r"shape \(3, 30, 40\), an array is \(H, W, 3\)"),
    (PICTURE.transpose(2, 0, 1)[None], 5, r"an array is \(H, W, 3\)"),
    (torch.from_numpy(PICTURE), None, r"shape \(30, 40, 3\), a tensor is \(3, H, W\)"),
    (torch.zeros(5, 30, 40, 3), 5, r"a tensor is \(3, H, W\)"),
    (PICTURE[..., 0], None, r"an array is \(H, W, 3\)"),
    (PICTURE[..., :1], None, r"an array is \(H, W, 3\)"),
    (np.dstack([PICTURE, PICTURE[..., 0]]), None, r"an array is \(H, W, 3\)"),
    (np.uint8(3), None, r"shape \(\), an array"),
    (TONE, None, r"shape \(4000,\), an array is .* sound is given as Arrays\(sound="),
    (PICTURE[:0], None, "an array is"),
    (PICTURE.astype(np.float32), None, "floats from 0 to 1, got float32 from 0 to 255"),
    (PICTURE / 127.5 - 1, None, "floats from 0 to 1, got float64 from -1 to 1"),
    (np.full((4, 5, 3), np.nan), None, "floats from 0 to 1"),
    (np.full((4, 5, 3), np.inf), None, "floats from 0 to 1"),
    (PICTURE.astype(np.int64), None, "not int64"),
    (PICTURE.astype(np.uint16) * 257, None, "not uint16"),
    (PICTURE > 100, None, "not bool"),
    (torch.from_numpy(PICTURE).movedim(2, 0).float(), None, "got float32 from 0 to 255"),
    (np.zeros((16385, 1, 3), np.uint8), None, "1 x 16385 pixels, more than is supported"),
    (np.broadcast_to(np.uint8(0), (10001, 10000, 3)), None, "10000 x 10001 pixels, more than is supported"),
    ([Image.new("RGB", (4, 5)), Image.new("RGB", (5, 4))], 2, "different sizes"),
    (Image.new("I;16", (4, 5)), None, "convert it to 8 bits"),
    (PICTURE[None].repeat(2, 0), None, "need fps"),
    (PICTURE[None].repeat(2, 0), "25", "fps '25' must be a number"),
    (PICTURE[None].repeat(2, 0), float("nan"), "fps nan must be a number"),
    (PICTURE[None].repeat(2, 0), 1001, "at most 1000"),
    (PICTURE[None].repeat(2, 0), True, "fps True must be a number"),
]


@pytest.mark.parametrize(("pictures", "fps", "message"), PICTURES_THAT_ARE_REFUSED)
def test_pictures_that_are_refused(pictures: Any, fps: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        seen(pictures, fps)
    assert str(caught.value).startswith("array: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [b"\xff\xd8\xff", bytearray(4), memoryview(b"abc"), open, None, 3, {}, []])
def test_what_is_no_input_is_one_line(given: Any) -> None:
    if given is open:
        with open(__file__, "rb") as file, pytest.raises(ValueError, match="type BufferedReader is not supported"):  # noqa: SIM117
            with open_recording(file):  # type: ignore[arg-type]
                pass
        return
    message = "is not supported: give a path" if isinstance(given, (bytes, bytearray, memoryview)) else "^array: "
    with pytest.raises(ValueError, match=message) as caught, open_recording(given):
        pass
    assert "\n" not in str(caught.value)
