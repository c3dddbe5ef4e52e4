"""Several tasks in one pass say what each alone says, decode once, and do not keep one another back."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from deepavfusion.audio import log_mel
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.media import MediaFile
from deepavfusion.drawing.localization import OPACITY, heat_overlay
from deepavfusion.images import normalize
from deepavfusion.inference.inputs import Arrays, FileRecording, open_recording
from deepavfusion.inference.predict_config import TASKS
from deepavfusion.inference.predictor import Predictor
from deepavfusion.inference.shared_film import SharedFilm
from deepavfusion.inference.steps import Shared, side_by_side
from deepavfusion.models.encoder import EarlyFusionEncoder
from deepavfusion.storage.trained_models import LoadedModels
from tests.data.media_writer import Clip, write_clip
from tests.inference.tiny_models import ENCODER, film, shared_encoder, tiny_models, write_film

SETTINGS: dict[str, Any] = {"step_seconds": 0.2, "arrays": True}


def shared_predictor(batch_size: int = 16, **settings: Any) -> Predictor:
    """Heads on one encoder."""
    models = tiny_models(**settings)
    encoder = shared_encoder(models)
    return Predictor(LoadedModels(models, encoder), "cpu", batch_size=batch_size)


def contents(folder: Path) -> dict[str, Any]:
    """What lies in a folder: decoded, so that only answers count."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                found |= {f"{path.name}/{name}": arrays[name] for name in arrays}
        elif path.suffix == ".npy":
            found[path.name] = np.load(path)
        elif path.suffix == ".png":
            found[path.name] = np.asarray(Image.open(path))
        elif path.suffix == ".wav":  # whose header tells the time of writing
            found[path.name] = soundfile.read(path)[0]
        else:
            found[path.name] = np.frombuffer(path.read_bytes(), np.uint8)
    return found


@pytest.mark.parametrize("batch_size", [2, 16])
def test_together_is_as_each_alone(batch_size: int, tmp_path: Path) -> None:
    path, settings = write_film(tmp_path / "clip.mp4", 3.3), {**SETTINGS, "step_seconds": 0.4}
    found = shared_predictor(batch_size).write_all(TASKS, path, tmp_path / "together", **settings)
    for task in TASKS:
        alone = shared_predictor(batch_size).write(task, path, tmp_path / "alone", **settings)
        assert found[task] == alone
    together, each = contents(tmp_path / "together"), contents(tmp_path / "alone")
    assert together.keys() == each.keys()
    for name, values in each.items():
        assert np.array_equal(values, together[name]), name


def test_each_picture_is_decoded_once_and_heads_share_their_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_film(tmp_path / "clip.mp4", 3.3)
    times: list[list[float]] = []
    film_of, forward, passes = FileRecording.film, EarlyFusionEncoder.forward, []

    def watched(self: FileRecording, wanted: Any) -> Any:
        times.append([time for time, _ in wanted])
        return film_of(self, wanted)

    def counted(self: EarlyFusionEncoder, image: Any, *args: Any, **kwargs: Any) -> Any:
        passes.append(len(image))
        return forward(self, image, *args, **kwargs)

    monkeypatch.setattr(FileRecording, "film", watched)
    monkeypatch.setattr(EarlyFusionEncoder, "forward", counted)
    shared_predictor().write_all(("localization", "segmentation"), path, tmp_path / "both", step_seconds=0.25)
    assert len(times) == 1
    assert times[0] == [0.25 * n for n in range(14)]
    assert passes == [14]
    passes.clear()
    shared_predictor().write_all(("classification", "embedding"), path, tmp_path / "both")
    assert passes == [6]
    passes.clear()
    apart = tiny_models()  # encoders of their own
    Predictor(LoadedModels(apart), "cpu").write_all(("localization", "segmentation"), path, tmp_path / "both")
    assert len(passes) == 2 * 3


def test_maps_are_those_of_the_model_asked_moment_by_moment(tmp_path: Path) -> None:
    """An independent slow way: each moment's frame sought on its own, its window of sound read on its own."""
    clip = Clip(seconds=4.0, size=(48, 64), frame_rate=25, gop=33)
    path = write_clip(tmp_path / "clip.mp4", clip)
    predictor = shared_predictor(batch_size=7)
    predictor.write_all(("localization", "segmentation"), path, tmp_path / "out", **SETTINGS)
    maps, masks = (np.load(tmp_path / "out" / f"{task}.npy") for task in ("localization", "segmentation"))
    record = json.loads((tmp_path / "out" / "localization.json").read_text())
    models = predictor.models
    with MediaFile(path) as media, torch.inference_mode():
        length = media.info.duration_seconds
        assert len(record["moments"]) == len(maps) == len(masks) == 20
        for number, moment in enumerate(record["moments"]):
            start = min(max(0.0, moment["seconds"] - 0.5), length - 1.0)
            picture = torch.from_numpy(media.frame(moment["seconds"], FrameCrop.whole(ENCODER.image_size)))
            image = normalize(picture.permute(2, 0, 1)[None])
            wave = torch.from_numpy(media.sound(round(start * 16000) / 16000, 1.0)[None])
            audio = log_mel(wave, ENCODER.audio_size[0])
            answer = models.load("localization")(image, audio)
            np.testing.assert_allclose(maps[number], answer.maps[0].sigmoid().numpy(), atol=1e-3)  # half precision
            assert moment["confidence"] == pytest.approx(float(answer.pooled.sigmoid().max()), abs=2e-5)
            mask = models.load("segmentation")(image, audio).argmax(dim=1)[0].numpy()
            assert (mask != masks[number]).mean() < 2e-3


def test_a_task_that_fails_lets_the_others_go_on(tmp_path: Path) -> None:
    frames, _ = film(2.5)
    silent = Arrays(frames, 12.5, name="silent")
    found = shared_predictor().write_all(TASKS, silent, tmp_path)
    assert [task for task in TASKS if isinstance(found[task], Exception)] == [
        "localization",
        "separation",
        "segmentation",
    ]
    assert "has no sound" in str(found["localization"])
    assert isinstance(found["classification"], dict)
    assert isinstance(found["embedding"], dict)
    with pytest.raises(ValueError, match="'hearing' is not a task"):
        shared_predictor().write_all(("hearing",), silent, tmp_path)  # type: ignore[arg-type]


def test_readers_of_a_film_see_what_frames_would_show(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", Clip(seconds=3.0, size=(48, 64), frame_rate=25, gop=33))
    wide, square = FrameCrop.whole((24, 48)), FrameCrop.whole((16, 16))
    moments = np.arange(30)[:, None] * 0.1
    pairs = np.stack([np.arange(10) * 0.3, np.arange(10) * 0.3 + 0.45], axis=1).clip(0, 3.0)  # overlap from row to row
    with open_recording(path) as recording, MediaFile(path) as media:
        shared = SharedFilm(recording)
        one, two, idle = shared.reader(moments, wide), shared.reader(pairs, square), shared.reader(moments, square)
        idle.close()
        assert two.at(pairs[:1]).shape == (1, 2, 16, 16, 3)
        assert np.array_equal(one.at(moments[:20]), media.frames(moments[:20, 0].tolist(), wide))
        for row in range(1, 10):
            expected = [media.frame(time, square) for time in pairs[row]]
            assert np.array_equal(two.at(pairs[row : row + 1])[0], np.stack(expected))
        assert np.array_equal(one.at(moments[20:]), media.frames(moments[20:, 0].tolist(), wide))
        assert not idle._waiting  # what nobody wants does not wait
        recording.sound(0.0, 1.0)


def test_works_keep_step_and_failures_stay_apart() -> None:
    order: list[str] = []

    def work(name: str, stride: float, fails: bool = False) -> Any:
        yield 0.0
        for done in np.arange(stride, 3.01, stride):
            order.append(name)
            yield float(done)
            if fails:
                raise ValueError("no more")
        return name * 2

    told: list[tuple[float, float]] = []
    found = side_by_side(
        {"a": work("a", 1.0), "b": work("b", 3.0), "c": work("c", 1.5, True)}, 3.0, lambda *t: told.append(t)
    )
    assert (found["a"], found["b"]) == ("aa", "bb")
    assert str(found["c"]) == "no more"
    assert order == ["a", "b", "c", "a", "a"]
    assert told == sorted(told)
    with pytest.raises(TypeError):  # a mistake of the program is no failure of a file
        side_by_side({"a": (len(3) for _ in range(1))}, 1.0)  # type: ignore[arg-type, dict-item]


def test_works_that_are_stopped_leave_nothing_half_written(tmp_path: Path) -> None:
    path = write_film(tmp_path / "clip.mp4", 3.3)

    class StopError(BaseException):
        pass

    def stop(done: float, length: float) -> None:
        if done > 0:
            assert list((tmp_path / "out").iterdir())  # something is being written
            raise StopError

    try:
        shared_predictor(batch_size=4).write_all(TASKS, path, tmp_path / "out", progress=stop, **SETTINGS)
    except StopError:  # the exception with its frames is still alive here
        assert not list((tmp_path / "out").iterdir())
    else:
        pytest.fail("it was not stopped")


def test_shared_items_are_made_once_and_let_go() -> None:
    class Item:
        pass

    made: list[weakref.ref[Item]] = []

    def items() -> Any:
        for _ in range(3):
            item = Item()
            made.append(weakref.ref(item))
            yield item
            del item

    shared = Shared(items())
    one, other = shared.reader(), shared.reader()
    first = next(one)
    assert next(other) is first
    assert len(made) == 1
    other.close()  # type: ignore[attr-defined]
    del first
    next(one)
    gc.collect()
    assert made[0]() is None
    assert len(list(one)) == 1


def test_heat_is_drawn_as_its_formula_says() -> None:
    """Against the formula written out in double precision, to a grey level."""
    from matplotlib import colormaps

    rng = np.random.default_rng(0)
    picture, heat = rng.integers(0, 256, (30, 52, 3), dtype=np.uint8), rng.random((4, 6)).astype(np.float32)
    for limits in ((0.0, 1.0), None):
        drawn = heat_overlay(picture, heat, limits)
        for y, x in ((0, 0), (29, 51), (7, 13), (18, 40), (29, 0)):
            v, u = y / 29 * 3, x / 51 * 5
            i, j = min(int(v), 2), min(int(u), 4)
            a, b = v - i, u - j
            value = (1 - a) * ((1 - b) * heat[i, j] + b * heat[i, j + 1])
            value += a * ((1 - b) * heat[i + 1, j] + b * heat[i + 1, j + 1])
            low, high = limits or (heat.min(), heat.max())
            share = min(max((value - low) / (high - low), 0), 1)
            pixel = picture[y, x].astype(float)
            base = (1 - share) * (0.55 * pixel + 0.45 * pixel.mean()) + share * pixel
            colour = 255 * np.array(colormaps["inferno"](float(share))[:3])
            expected = (1 - OPACITY * share) * base + OPACITY * share * colour
            assert np.abs(drawn[y, x] - expected).max() <= 1.01
    assert heat_overlay(picture, np.full((4, 6), np.nan, np.float32)).shape == picture.shape
