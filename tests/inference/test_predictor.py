"""What a predictor says of recordings of every kind: shapes, times, equality with the model's own answer, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from deepavfusion.audio import log_mel
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.media import MediaError, MediaFile
from deepavfusion.data.views import CentreView
from deepavfusion.data.waveforms import continue_sound
from deepavfusion.images import normalize
from deepavfusion.inference import Arrays, Predictor
from deepavfusion.inference import predictor as predictor_module
from deepavfusion.storage import starting_point
from deepavfusion.storage.bundle import Bundle
from tests.inference.tiny_models import (
    ENCODER,
    WINDOW,
    film,
    predictor,
    shared_encoder,
    tiny_models,
    write_film,
    write_wav,
)

TASKS = ("classification", "localization", "separation", "segmentation", "embedding")
METHODS = dict(zip(TASKS, ("classify", "localize", "separate", "segment", "embed"), strict=True))


@pytest.fixture(scope="module")
def own() -> Predictor:
    return predictor()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_film(folder / "short.mp4", 0.72)
    write_film(folder / "long.mp4", 3.6, seed=1)
    write_wav(folder / "sound.wav", 2.3)
    Image.fromarray(film(0.1)[0][0]).save(folder / "photo.png")
    return folder


def arrays_of(result: Any) -> dict[str, np.ndarray]:
    found = {k: v for k, v in vars(result).items() if isinstance(v, np.ndarray)}
    for name in ("features", "present"):
        if isinstance(getattr(result, name, None), dict):
            found |= {f"{name} {k}": v for k, v in getattr(result, name).items()}
    return found


def test_one_window_is_the_models_own_answer(own: Predictor, clips: Path) -> None:
    path = clips / "short.mp4"
    with MediaFile(path) as media:
        view = CentreView.from_config(ENCODER).read(media)
        duration = media.info.duration_seconds
        whole = media.frame(0.5, FrameCrop.whole(ENCODER.image_size))
        wave = media.sound(0.0, WINDOW)
    assert view.image is not None
    assert view.waveform is not None
    image = normalize(torch.from_numpy(view.image).permute(2, 0, 1)[None])
    audio = log_mel(torch.from_numpy(view.waveform)[None], 32)
    models = own.models
    with torch.inference_mode():
        logits = models.load("classification")(image, audio).average.numpy()
        tokens = models.load_encoder()(image, audio)
        squeezed = normalize(torch.from_numpy(whole).permute(2, 0, 1)[None])
        maps = models.load("localization")(squeezed, audio).maps.sigmoid().numpy()
        masks = models.load("segmentation")(squeezed, audio).argmax(dim=1).numpy()
    found = own.classify(path)
    assert found.logits.shape == (1, 3)
    assert found.duration_seconds == duration
    np.testing.assert_allclose(found.logits, logits, atol=1e-5)
    assert np.array_equal(found.clip_logits, found.logits[0])
    assert np.array_equal(found.clip_scores, found.scores[0])
    assert found.centre_seconds.tolist() == pytest.approx([duration / 2])
    embedded = own.embed(path)
    assert embedded.features.keys() == {"image", "audio", "fusion"}
    np.testing.assert_allclose(embedded.features["audio"], tokens.audio.mean(dim=1).numpy(), atol=1e-5)
    np.testing.assert_allclose(embedded.features["fusion"], tokens.fusion.mean(dim=1).numpy(), atol=1e-5)
    located, segmented = own.localize(path, step_seconds=0.5), own.segment(path, step_seconds=0.5)
    assert located.times_seconds.tolist() == segmented.times_seconds.tolist() == [0.0, 0.5]
    np.testing.assert_allclose(located.maps[1:], maps, atol=1e-5)
    assert (segmented.masks[1] == masks[0]).mean() > 0.99
    separated = own.separate(path)
    with torch.inference_mode():
        middle = FrameCrop.whole(ENCODER.image_size)
        with MediaFile(path) as media:
            picture = media.frame(duration / 2, middle)
        mixture = torch.from_numpy(continue_sound(wave, 16000))[None]
        alone = models.load("separation")(normalize(torch.from_numpy(picture).permute(2, 0, 1)[None]), mixture)
    np.testing.assert_allclose(separated.sources, alone.waveform().numpy()[:, : len(wave)], atol=1e-5)
    np.testing.assert_allclose(separated.mixture, wave, atol=1e-5)


def test_long_recordings_are_seen_window_by_window(own: Predictor, clips: Path) -> None:
    found = own.classify(str(clips / "long.mp4"), hop_seconds=1.0)
    duration = found.duration_seconds
    assert found.logits.shape == (4, 3)
    assert found.start_seconds[-1] + WINDOW == pytest.approx(duration)
    np.testing.assert_allclose(found.clip_logits, found.logits.mean(axis=0), atol=1e-6)
    assert found.top(2)[0][1] == found.clip_scores.max()
    assert np.unique(found.logits[:, 0]).size == 4
    with MediaFile(clips / "long.mp4") as media:
        wave = media.sound(0.0, 10.0)
    separated = own.separate(clips / "long.mp4", boxes=[(0, 0, 0.5, 1), (0.5, 0, 1, 1)])
    assert separated.names == ("source_0", "source_1")
    assert separated.sources.shape == (2, len(wave))
    np.testing.assert_allclose(separated.mixture, wave, atol=1e-5)
    assert not np.allclose(separated.sources[0], separated.sources[1])
    consistent = own.separate(clips / "long.mp4", boxes=[(0, 0, 0.5, 1), (0.5, 0, 1, 1)], consistent=True)
    assert np.abs(consistent.residual).max() < 1e-5
    steps = own.localize(clips / "long.mp4", step_seconds=0.25)
    assert steps.maps.shape == (len(np.arange(0, duration, 0.25)), 2, 4, 6)
    assert steps.confidence.shape == (len(steps.times_seconds), 2)
    assert ((steps.maps >= 0) & (steps.maps <= 1)).all()
    masks = own.segment(clips / "long.mp4", step_seconds=0.25)
    assert masks.masks.shape == (len(steps.times_seconds), 32, 48)
    np.testing.assert_allclose(masks.shares.sum(axis=1), 1, atol=1e-6)
    assert masks.shares[3, 2] == pytest.approx((masks.masks[3] == 2).mean())


@pytest.mark.parametrize("task", TASKS)
def test_results_do_not_depend_on_the_batch_size(task: str, clips: Path) -> None:
    results = []
    for size in (1, 3, 64):
        ask = getattr(predictor(size), METHODS[task])
        settings = {"boxes": [(0, 0, 0.5, 1), (0.5, 0, 1, 1), (0, 0, 1, 1)]} if task == "separation" else {}
        results.append(arrays_of(ask(clips / "long.mp4", **settings)))
    for other in results[1:]:
        assert other.keys() == results[0].keys()
        for name, values in results[0].items():
            if name == "masks":
                assert (values != other[name]).mean() < 1e-3
            else:
                np.testing.assert_allclose(other[name], values, atol=2e-3 if name == "shares" else 1e-5)


def test_recordings_without_sound_or_picture(own: Predictor, clips: Path) -> None:
    photo, sound = clips / "photo.png", clips / "sound.wav"
    for given, streams, windows in ((photo, {"image", "fusion"}, 1), (sound, {"audio", "fusion"}, 4)):
        found = own.classify(given)
        assert found.logits.shape == (windows, 3)
        assert np.isfinite(found.logits).all()
        embedded = own.embed(given)
        assert {name for name, there in embedded.present.items() if there.all()} == streams
        assert {name for name, there in embedded.present.items() if there.any()} == streams
    for method, given, message in (
        ("localize", photo, "has no sound, which this task needs"),
        ("localize", sound, "has no video"),
        ("segment", photo, "has no sound"),
        ("segment", sound, "has no video"),
        ("separate", photo, "has no sound to separate"),
        ("separate", sound, "has no video to show the source; give pictures"),
    ):
        with pytest.raises(ValueError, match=f"{given.name}: {message}"):
            getattr(own, method)(given)
    deaf = predictor(modalities="image", heads=("image",))
    with pytest.raises(ValueError, match="has no picture, which is all that this model uses"):
        deaf.classify(sound)
    assert np.isfinite(deaf.classify(photo).logits).all()


def test_a_photo_with_a_sound(own: Predictor, clips: Path) -> None:
    pair = (clips / "photo.png", clips / "sound.wav")
    assert own.classify(pair).logits.shape == (4, 3)
    located = own.localize(pair)
    assert located.duration_seconds == pytest.approx(2.3)
    assert len(located.times_seconds) == 23
    assert np.abs(np.diff(located.maps, axis=0)).max() > 1e-5
    separated = own.separate(pair)
    assert separated.sources.shape == (1, 36800)
    by_picture = own.separate(clips / "sound.wav", pictures=[clips / "photo.png", film(0.1)[0][0]])
    np.testing.assert_allclose(by_picture.sources[1], separated.sources[0], atol=1e-5)


def test_sound_that_ends_before_the_picture(own: Predictor) -> None:
    frames, wave = film(3.0)
    given = Arrays(frames[:37], 12.5, wave[:14000], 16000)
    embedded = own.embed(given)
    assert embedded.present["audio"].tolist() == [True, True, False, False, False]
    assert embedded.present["image"].all()
    assert not embedded.features["audio"][3].any()
    assert np.isfinite(own.localize(given).maps).all()
    assert np.isfinite(own.segment(given).shares).all()


def test_arrays_and_files_agree(own: Predictor, clips: Path) -> None:
    with MediaFile(clips / "long.mp4") as media:
        info = media.info
        wave = media.sound(0.0, 10.0)
        count = round(info.picture_end_seconds * info.frame_rate)
        frames = media.frames([(i + 0.01) / info.frame_rate for i in range(count)], FrameCrop.whole((40, 56)))
    given = Arrays(frames, info.frame_rate, wave, 16000)
    ours, theirs = own.classify(given), own.classify(clips / "long.mp4")
    assert ours.name == "array"
    np.testing.assert_allclose(ours.clip_logits, theirs.clip_logits, atol=0.2)  # two ways to scale
    assert ours.logits.shape == theirs.logits.shape


def test_lists_are_answered_in_order(own: Predictor, clips: Path) -> None:
    paths = [clips / "long.mp4", clips / "short.mp4"]
    found = own.classify(paths)
    assert [one.name for one in found] == [str(path) for path in paths]
    assert np.array_equal(found[1].logits, own.classify(paths[1]).logits)
    assert own.embed([]) == []
    with pytest.raises(MediaError, match=r"nothing\.mp4: cannot be opened"):
        own.classify([clips / "nothing.mp4"])


@pytest.mark.parametrize("task", TASKS)
def test_save_and_write_leave_the_same_files(task: str, own: Predictor, clips: Path, tmp_path: Path) -> None:
    path = clips / "long.mp4"
    saved = getattr(own, METHODS[task])(path).save(tmp_path / "saved", about={"note": "<b>&"})
    written = own.write(task, path, tmp_path / "written", about={"note": "<b>&"}, arrays=True)  # type: ignore[arg-type]
    assert saved == written
    names = {p.name for p in (tmp_path / "saved").iterdir()}
    assert names == {p.name for p in (tmp_path / "written").iterdir()} == {f"{task}.json", *saved["files"].values()}
    text = (tmp_path / "saved" / f"{task}.json").read_text()
    assert json.loads(text) == saved
    assert not set("<>&") & set(text)
    assert saved["task"] == task
    assert saved["note"] == "<b>&"
    if task == "segmentation":
        assert list(saved["colours"]) == ["disc", "square", "ring <b>"]
        assert len(set(saved["colours"].values())) == 3
    for name in names:
        one, other = (tmp_path / folder / name for folder in ("saved", "written"))
        if name.endswith(".png"):
            assert np.asarray(Image.open(one)).std() > 1
            assert np.array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(other)))
        elif name.endswith(".wav"):
            assert np.array_equal(soundfile.read(one)[0], soundfile.read(other)[0])
        elif name.endswith(".npy"):
            assert np.array_equal(np.load(one), np.load(other))
        elif name.endswith(".mp4"):
            with MediaFile(one) as media, MediaFile(path) as original:
                assert media.info.picture_end_seconds == pytest.approx(len(saved["moments"]) * 0.1, abs=0.01)
                assert (media.info.height, media.info.width) == (40, 56)
                ours, theirs = media.sound(0.0, 3.0), original.sound(0.0, 3.0)
                lag = 1024 - np.argmax(np.correlate(ours[4096:40000], theirs[5120:38976], "valid"))
                assert abs(lag) <= 1024
                assert np.corrcoef(ours[4096:40000], theirs[4096:40000])[0, 1] > 0.9
    assert own.write(task, path, tmp_path / "bare", film=False)["files"].keys() <= {  # type: ignore[arg-type]
        "scores", "timeline", "features", "picture", "source_0", "residual",
    }  # fmt: skip


def test_a_single_moment_is_a_picture_and_no_film(own: Predictor, clips: Path, tmp_path: Path) -> None:
    given = (clips / "photo.png", Arrays(sound=np.sin(np.arange(1000) / 9), rate=16000))
    record = own.write("localization", given, tmp_path, arrays=True)
    assert record["duration_seconds"] == 0.0625
    assert len(record["moments"]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["localization.json", "localization.npy", "localization.png"]
    found = own.localize(given)
    peak = record["moments"][0]["peak"]
    best = found.maps[0, found.confidence[0].argmax()]
    assert best[int(peak["y"] * 4), int(peak["x"] * 6)] == best.max()


def test_what_cannot_be_kept_is_not_begun(own: Predictor, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor_module, "MAX_KEPT_BYTES", 1000)
    for method in ("localize", "segment", "separate"):
        with pytest.raises(ValueError, match=r"long\.mp4: the result would take .* Predictor\.write"):
            getattr(own, method)(clips / "long.mp4")


def test_from_pretrained(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models()
    shared_encoder(models)
    Bundle.save(tmp_path / "b", {k: models[k] for k in ("classification", "localization")})
    opened = Predictor.from_pretrained(tmp_path / "b", "cpu", batch_size=2)
    assert opened.tasks == ("classification", "localization", "embedding")
    monkeypatch.setattr(starting_point, "SHIPPED", tmp_path)
    assert Predictor.from_pretrained("shipped:b", "cpu").tasks == opened.tasks
    models["classification"].save_pretrained(tmp_path / "run" / "model")
    single = Predictor.from_pretrained(str(tmp_path / "run"), "cpu")
    path = clips / "short.mp4"
    assert np.array_equal(opened.classify(path).logits, single.classify(path).logits)
    assert np.array_equal(opened.embed(path).features["fusion"], single.embed(path).features["fusion"])
    with pytest.raises(ValueError, match="no head for separation; it has classification, localization"):
        opened.separate(path)
    assert opened.digest("classification") == single.digest("classification")
    assert opened.digest("classification") != opened.digest("localization")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"boxes": [(0, 0, 0.5, 2)]}, "fractions from 0 to 1"),
        ({"boxes": [(0.5, 0, 0.5, 1)]}, "right after left"),
        ({"boxes": [(0, 0, 1, 1)], "pictures": [np.zeros((4, 4, 3), np.uint8)]}, "not both"),
        ({"pictures": [np.zeros((4, 4), np.uint8)]}, "images of shape .* an array is"),
    ],
)
def test_sources_that_cannot_be_asked_for(own: Predictor, clips: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        own.separate(clips / "short.mp4", **settings)
