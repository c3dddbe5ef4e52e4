"""A task of mteb that is built here, of really decoded files, with our encoder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("mteb", reason="needs the extra mteb")

import mteb
from datasets import Audio, Dataset, Video
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from deepavfusion.inference.inputs import open_recording
from deepavfusion.integrations.mteb import DeepAVFusionEncoder
from tests.archive.tiny_joint_model import save_joint_model
from tests.inference.tiny_models import film, write_film

NUM = 4


class SoundsOfFilms(AbsTaskRetrieval):
    """Which sound belongs to a film; rows are files, not decoded by the library."""

    metadata = TaskMetadata(
        name="SoundsOfFilms",
        description="Made in a test.",
        dataset={"path": "none", "revision": "none"},
        type="Any2AnyRetrieval",
        category="v2a",
        modalities=["video", "audio"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="recall_at_1",
        date=("2026-01-01", "2026-01-01"),
        domains=[],
        task_subtypes=[],
        license="apache-2.0",
        annotations_creators="derived",
        dialect=[],
        sample_creation="created",
        bibtex_citation="",
    )
    folder: Path

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        films = Dataset.from_dict(
            {"id": [f"q{i}" for i in range(NUM)], "video": [str(self.folder / f"{i}.mp4") for i in range(NUM)]}
        ).cast_column("video", Video(decode=False))
        sounds = Dataset.from_dict(
            {"id": [f"d{i}" for i in range(NUM)], "audio": [str(self.folder / f"{i}.wav") for i in range(NUM)]}
        ).cast_column("audio", Audio(decode=False))
        relevant = {f"q{i}": {f"d{i}": 1} for i in range(NUM)}
        split = {"queries": films, "corpus": sounds, "relevant_docs": relevant, "top_ranked": None}
        self.dataset = {"default": {"test": split}}  # type: ignore[typeddict-item]
        self.data_loaded = True


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_joint_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for number in range(NUM):
        write_film(folder / f"{number}.mp4", 1.0 + 0.5 * number, seed=number)
        soundfile.write(folder / f"{number}.wav", film(1.0 + 0.5 * number, seed=number)[1], 16000)
    return folder


def test_a_task_scores_as_the_vectors_say(model: str, files: Path, tmp_path: Path) -> None:
    encoder, task = DeepAVFusionEncoder(model, device="cpu"), SoundsOfFilms()
    task.folder = files
    found = mteb.evaluate(encoder, task, cache=None, co2_tracker=False, encode_kwargs={"batch_size": 3})
    scores = found.task_results[0].scores["test"][0]

    def vectors(suffix: str, stream: str) -> np.ndarray:
        rows = []
        for number in range(NUM):
            with open_recording(files / f"{number}.{suffix}") as recording:
                mean = encoder.space.windows(recording).streams[stream].mean(axis=0)
            rows.append(mean / np.linalg.norm(mean))
        return np.stack(rows)

    similarity = vectors("mp4", "image") @ vectors("wav", "audio").T
    assert scores["recall_at_1"] == pytest.approx(np.mean(similarity.argmax(axis=1) == np.arange(NUM)), abs=1e-4)
    assert found.task_results[0].task_name == "SoundsOfFilms"


def encode(encoder: DeepAVFusionEncoder, batch: dict[str, Any], category: str = "va2va") -> np.ndarray:
    about = SimpleNamespace(name="made", category=category)
    return encoder.encode([batch], task_metadata=about, hf_split="test", hf_subset="default")


def test_items_of_every_kind_are_the_same(model: str, files: Path) -> None:
    encoder, wav, mp4 = DeepAVFusionEncoder(model, device="cpu"), files / "1.wav", files / "1.mp4"
    waveform, rate = soundfile.read(wav, dtype="float32")
    kinds: list[Any] = [str(wav), {"path": str(wav), "bytes": None}, {"path": "a.wav", "bytes": wav.read_bytes()}]
    rows = encode(encoder, {"audio": [*kinds, {"array": waveform, "sampling_rate": rate}]})
    assert rows.shape == (4, 8)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(rows, rows[:1].repeat(4, axis=0), atol=1e-5)
    seen, both = encode(encoder, {"video": [str(mp4)]}), encode(encoder, {"video": [str(mp4)], "audio": [str(wav)]})
    assert not np.allclose(seen, both)


def test_what_cannot_be_compared_is_refused(model: str, files: Path) -> None:
    encoder = DeepAVFusionEncoder("shipped:bandstand", device="cpu")
    with pytest.raises(ValueError, match="has no joint space"):
        encode(encoder, {"video": [str(files / "0.mp4")]}, "v2a")
    assert encode(encoder, {"audio": [str(files / "0.wav")]}, "a2a").shape == (1, 128)
    with pytest.raises(ValueError, match="items of text; this model reads image, video, audio"):
        encode(encoder, {"text": ["a dog"]}, "t2v")
    with pytest.raises(ValueError, match="items of type int are not supported"):
        encode(encoder, {"audio": [3]}, "a2a")
