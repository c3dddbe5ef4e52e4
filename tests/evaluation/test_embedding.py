"""Features of real little clips: what is written, how a stopped run goes on, probes and neighbours on them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion.audio import log_mel
from deepavfusion.cli import main
from deepavfusion.data.clips import find_clips, write_manifest
from deepavfusion.data.dataset import ClipSet, collate
from deepavfusion.data.features import join_parts, read_features, save_arrays
from deepavfusion.data.loading import StepSampler
from deepavfusion.data.views import CentreView
from deepavfusion.evaluation.config import (
    EmbedConfig,
    EvaluateConfig,
    EvaluationData,
    NeighboursConfig,
    RetrievalConfig,
)
from deepavfusion.evaluation.evaluate import evaluate
from deepavfusion.evaluation.features.embedding import embed
from deepavfusion.evaluation.features.neighbours import neighbours, vote
from deepavfusion.evaluation.features.retrieval import retrieval
from deepavfusion.images import normalize
from deepavfusion.models import AudioVisualMAE, EarlyFusionEncoder, MaskedAutoencoderConfig
from deepavfusion.models.config import AlignmentConfig, MaskedDecodingConfig
from deepavfusion.storage.starting_point import digest_weights
from deepavfusion.tasks.feature_probe import FeatureProbe, classification_task
from deepavfusion.training.loop import fit
from tests.tasks.classification_runs import ENCODER, make, quiet, write_data, write_encoder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips, of which the third cannot be read."""
    folder = tmp_path_factory.mktemp("data")
    rows = list(find_clips(str(write_data(folder))))
    (folder / "broken.mp4").write_bytes(b"not a video")
    rows[2] = replace(rows[2], path=str(folder / "broken.mp4"))
    write_manifest(str(folder / "clips.csv"), rows)
    return folder / "clips.csv"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def features(data: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("features") / "all.npz"
    embed(settings(encoder, data, out))
    return out


def settings(encoder: Path, data: Path, out: Path, split: str = "all", **changes: object) -> EmbedConfig:
    clips = EvaluationData(str(data), split=split, num_workers=0)
    return EmbedConfig(str(encoder), clips, str(out), **{"clips_per_part": 3, "batch_size": 2, **changes})  # type: ignore[arg-type]


def test_features_are_the_mean_tokens_of_centre_views(data: Path, encoder: Path, features: Path) -> None:
    clips = find_clips(str(data))
    found = read_features(str(features))
    assert found.ids == tuple(clip.id for i, clip in enumerate(clips) if i != 2)
    assert found.labels == tuple(clip.label for i, clip in enumerate(clips) if i != 2)
    assert list(found.failed) == [clips[2].id]
    batch = collate([ClipSet(clips, CentreView.from_config(ENCODER))[i] for i in range(8) if i != 2])
    model = EarlyFusionEncoder.from_pretrained(encoder)
    with torch.no_grad():
        out = model(normalize(batch.image), log_mel(batch.waveform, 32))
    for stream in ("image", "audio", "fusion"):
        np.testing.assert_allclose(found.streams[stream], getattr(out, stream).mean(1).numpy(), rtol=1e-4, atol=1e-5)
    assert found.meta["encoder_digest"] == digest_weights(model)
    assert not Path(f"{features}.parts").exists()


def test_a_stopped_run_goes_on_and_ends_alike(data: Path, encoder: Path, features: Path, tmp_path: Path) -> None:
    config, done = settings(encoder, data, tmp_path / "all.npz"), []

    def stop_after_two(count: int, total: int) -> None:
        done.append(count)
        if count == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(config, stop_after_two)
    assert done == [0, 3, 6]
    with pytest.raises(ValueError, match="holds parts of another embedding"):
        embed(replace(config, tokens="all"))
    summary = embed(config)
    assert summary is not None
    assert (summary.num_clips, summary.num_continued) == (7, 6)
    assert summary.coverage.num_official == 8
    with np.load(tmp_path / "all.npz") as a, np.load(features) as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])


def test_parts_join_to_the_whole(data: Path, encoder: Path, features: Path, tmp_path: Path) -> None:
    config = settings(encoder, data, tmp_path / "all.npz")
    parts = [embed(replace(config, part=f"{number}/2")) for number in (2, 1)]
    assert [(part.num_clips, part.complete) for part in parts if part is not None] == [(3, False), (4, False)]
    assert not (tmp_path / "all.npz").exists()
    summary = embed(config)
    assert summary is not None
    assert (summary.num_clips, summary.num_continued, summary.complete) == (7, 8, True)
    assert (tmp_path / "all.npz").read_bytes() == features.read_bytes()
    with pytest.raises(ValueError, match=r"part '3/2' must be i/n with i from 1 to n"):
        replace(config, part="3/2")


def test_all_tokens_and_single_modalities(data: Path, encoder: Path, tmp_path: Path) -> None:
    embed(settings(encoder, data, tmp_path / "x.npz", "test", tokens="all", modalities="audio"))
    found = read_features(str(tmp_path / "x.npz"))
    assert set(found.streams) == {"audio", "fusion"}
    assert found.streams["audio"].shape == (2, 16, 16)
    assert found.streams["fusion"].shape == (2, 6, 16)
    assert not found.image_present.any()
    found.check(found.meta["encoder_digest"], "audio", pooled=True)
    embed(settings(encoder, data, tmp_path / "y.npz", tokens="pooled"))
    with pytest.raises(ValueError, match="holds pooled features; write all tokens"):
        read_features(str(tmp_path / "y.npz")).check(found.meta["encoder_digest"], "both", pooled=False)


def test_parquet_holds_the_same(
    data: Path, encoder: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    words = ["embed", "--from", str(encoder), "--data.source", str(data), "--data.split", "all", "--batch_size", "2"]
    out = tmp_path / "new" / "x.parquet"
    assert main([*words, "--clips_per_part", "3", "--data.num_workers", "0", "--out", str(out)]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["x.parquet"]
    report = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "coverage scored 7 of 8 official clips" in report
    assert "complete yes" in report
    table, npz = parquet.read_table(out), read_features(str(features))
    assert table["ids"].to_pylist() == list(npz.ids)
    np.testing.assert_array_equal(np.array(table["audio"].to_pylist(), dtype=np.float32), npz.streams["audio"])
    assert json.loads(table.schema.metadata[b"deepavfusion"])["shapes"]["fusion"] == [16]


@pytest.mark.parametrize(("recipe", "tokens"), [("probe", "pooled"), ("probe", "all"), ("attentive", "all")])
def test_a_probe_on_features_is_the_probe_on_clips_without_random_views(
    data: Path, encoder: Path, tmp_path: Path, recipe: str, tokens: str
) -> None:
    features = tmp_path / "features.npz"
    embed(settings(encoder, data, features, tokens=tokens))
    optim = {"epochs": 8, "warmup_epochs": 1}
    config = make(recipe, data, encoder, tmp_path / "probe", features=str(features), optim=optim)
    task = classification_task(config)
    assert isinstance(task, FeatureProbe)
    assert len(task.clips) == 5
    result = fit(task, config, quiet())
    assert result.status == "finished"
    assert result.num_failures == 0
    # One step by hand, from clips: the same order, heads and loss.
    torch.manual_seed(config.training.seed)
    fresh = classification_task(config)
    model = fresh.build_model()
    fresh.load_published(model, lambda message: None)
    model.train()
    batch = next(iter(fresh.loader(StepSampler(4, 1, 1, 0, 0, 1), 0, torch.device("cpu"))))
    loss = fresh.loss_terms(model, fresh.inputs(batch))["class"]
    clips = {clip.id: clip for clip in fresh.clips}
    views = ClipSet([clips[name] for name in batch.ids], CentreView.from_config(ENCODER))
    seen = collate([views[i] for i in range(4)])
    out = model(normalize(seen.image), log_mel(seen.waveform, 32))
    by_hand = torch.nn.functional.cross_entropy(out.average, fresh.targets(batch.ids).argmax(1))
    torch.testing.assert_close(loss, by_hand, rtol=1e-4, atol=1e-5)

    both = [EvaluationData(str(data), "all", 0)] * 2
    on_clips = evaluate(EvaluateConfig(str(tmp_path / "probe"), both[0], out=str(tmp_path / "a")))
    on_features = evaluate(
        EvaluateConfig(str(tmp_path / "probe"), both[1], out=str(tmp_path / "b"), features=str(features))
    )
    assert on_clips is not None
    assert on_features is not None
    assert on_features.record.scores == on_clips.record.scores
    assert on_features.record.coverage == on_clips.record.coverage
    with np.load(tmp_path / "a" / "predictions.npz") as a, np.load(tmp_path / "b" / "predictions.npz") as b:
        np.testing.assert_allclose(a["fusion"], b["fusion"], rtol=1e-4, atol=1e-5)


def test_features_of_another_encoder_are_refused(data: Path, features: Path, tmp_path: Path) -> None:
    other = write_encoder(tmp_path / "other", fusion="dense")
    config = make("probe", data, other, tmp_path / "probe", features=str(features))
    with pytest.raises(ValueError, match="was written with another encoder"):
        fit(classification_task(config), config, quiet())
    with pytest.raises(ValueError, match="no features written by"):
        read_features(str(tmp_path / "none.npz"))


def test_an_untrained_encoder_is_that_of_the_seed(data: Path, encoder: Path, tmp_path: Path) -> None:
    embed(settings(encoder, data, tmp_path / "x.npz", untrained=True, seed=3))
    for seed, fits in ((3, True), (4, False)):
        run = tmp_path / str(seed)
        config = make(
            "probe", data, encoder, run, untrained=True, features=str(tmp_path / "x.npz"), training={"seed": seed}
        )
        if fits:
            assert fit(classification_task(config), config, quiet()).status == "finished"
        else:
            with pytest.raises(ValueError, match="was written with another encoder"):
                fit(classification_task(config), config, quiet())


def test_neighbours_vote(data: Path, encoder: Path, features: Path, tmp_path: Path) -> None:
    result = neighbours(NeighboursConfig(str(features), str(features), str(tmp_path / "knn")))
    assert set(result.record.details["heads"]) == {"average", "image", "audio", "fusion"}
    assert result.record.scores["top1 average"].value == 1.0  # every clip is its own nearest
    assert result.record.protocol == "single label, 1 nearest of 7 clips, centre window"
    assert (result.record.coverage.num_scored, result.record.coverage.num_official) == (7, 8)
    with pytest.raises(ValueError, match=r"k 8: .* has 7 labelled clips"):
        neighbours(NeighboursConfig(str(features), str(features), str(tmp_path / "x"), k=8))


def test_votes_by_hand() -> None:
    known = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    targets = torch.tensor([[True, False], [False, True], [False, True]])
    asked = torch.tensor([[1.0, 0.0]])
    one = vote([(asked, known)], targets, 1, 0.5)
    assert one.tolist() == [[1.0, 0.0]]
    three = vote([(asked, known)], targets, 3, 0.5)
    expected = [1.0, np.exp((0.6 - 1) / 0.5) + np.exp((0.0 - 1) / 0.5)]
    np.testing.assert_allclose(three[0].numpy(), expected, rtol=1e-6)
    two_streams = vote([(asked, known), (asked * 0, known * 0)], targets, 3, 0.25)  # mean cosine: halves
    np.testing.assert_allclose(two_streams.numpy(), three.numpy(), rtol=1e-6)


def test_the_joint_space_has_image_and_sound_each_encoded_alone(data: Path, encoder: Path, tmp_path: Path) -> None:
    decoding = MaskedDecodingConfig(decoder_dim=16, decoder_num_heads=2, image_decoder_depth=1, audio_decoder_depth=1)
    torch.manual_seed(0)
    aligned = MaskedAutoencoderConfig.from_parts(ENCODER, decoding, AlignmentConfig(weight=1, dim=6, hidden_dim=8))
    model = AudioVisualMAE(aligned).eval()
    model.save_pretrained(tmp_path / "model")
    embed(settings(tmp_path / "model", data, tmp_path / "joint.npz", tokens="joint"))
    found = read_features(str(tmp_path / "joint.npz"))
    batch = collate([ClipSet(find_clips(str(data)), CentreView.from_config(ENCODER))[i] for i in range(8) if i != 2])
    image, audio = normalize(batch.image), log_mel(batch.waveform, 32)
    assert model.alignment is not None
    with torch.no_grad():
        alone = {"image": model.encoder(image, None), "audio": model.encoder(None, audio)}
        for name, out in alone.items():
            expected = model.alignment.embed(out).numpy()
            np.testing.assert_allclose(found.streams[name], expected, rtol=1e-4, atol=1e-5)
    assert set(found.streams) == {"image", "audio"}
    config = NeighboursConfig(str(tmp_path / "joint.npz"), str(tmp_path / "joint.npz"), str(tmp_path / "knn"), k=1)
    assert neighbours(config).record.scores["top1 average"].value == 1.0  # each is its own nearest
    with pytest.raises(ValueError, match="holds the joint space; write the tokens"):
        found.check(digest_weights(model.encoder), "both", pooled=True)
    with pytest.raises(ValueError, match=r"has no joint space; one comes from pretrain with --alignment\.weight"):
        embed(settings(encoder, data, tmp_path / "none.npz", tokens="joint"))
    with pytest.raises(ValueError, match="tokens joint: needs a trained model and --modalities both"):
        settings(encoder, data, tmp_path / "none.npz", tokens="joint", modalities="image")


def write_features(out: Path, image: list[list[float]], audio: list[list[float]], sound: list[bool]) -> None:
    """A file as `embed --tokens joint` writes it."""
    names = [f"clip{n}" for n in range(len(image))]
    meta = {"tokens": "joint", "source": "clips", "split": "all", "missing": ["gone"], "quarantined": {}, "failed": {}}
    arrays = {"ids": np.array(names), "labels": np.array([""] * len(names)), "splits": np.array([""] * len(names))}
    arrays |= {"image": np.array(image, np.float32), "audio": np.array(audio, np.float32)}
    arrays |= {"image_present": np.ones(len(names), bool), "audio_present": np.array(sound)}
    part = out.with_name("part.npz")
    save_arrays(part, arrays)
    join_parts([part], out, meta)


def test_retrieval_by_hand(tmp_path: Path) -> None:
    image = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.1], [0.5, 0.5]]
    audio = [[0.9, 0.1], [1.0, 0.2], [-1.0, 0.0], [0.0, 0.0]]
    write_features(tmp_path / "joint.npz", image, audio, [True, True, True, False])
    result = retrieval(RetrievalConfig(str(tmp_path / "joint.npz"), str(tmp_path / "out")))
    scores = {name: score.value for name, score in result.record.scores.items()}
    # Image 1 (up) is nearest to sound 1; sound 1 (right) is nearer to image 0 than to its own.
    assert scores["R@1 image to sound"] == 1.0
    assert scores["R@1 sound to image"] == pytest.approx(2 / 3)
    assert scores["R@5 sound to image"] == 1.0
    assert (scores["median rank image to sound"], scores["median rank sound to image"]) == (1.0, 1.0)
    assert result.record.protocol == "own clip among 3, centre window, joint space"
    assert (result.record.coverage.num_scored, result.record.coverage.num_official) == (3, 5)
    assert result.record.coverage.failed == {"clip3": "no image or no sound"}
    assert "chance: R@1 33.33, R@5 100.00, R@10 100.00" in result.printed.lines
    stored = np.load(tmp_path / "out" / "samples.npz")
    assert stored["rank sound to image"].tolist() == [1, 2, 1]
    assert (tmp_path / "out" / "recall.png").stat().st_size > 1000


def test_retrieval_names_what_a_file_lacks(features: Path, tmp_path: Path, data: Path, encoder: Path) -> None:
    result = retrieval(RetrievalConfig(str(features), str(tmp_path / "out")))
    assert result.record.protocol.endswith("mean tokens, no joint space")
    embed(settings(encoder, data, tmp_path / "seen.npz", modalities="image"))
    with pytest.raises(ValueError, match="retrieval compares vectors of image and sound; write them with"):
        retrieval(RetrievalConfig(str(tmp_path / "seen.npz"), str(tmp_path / "x")))
    write_features(tmp_path / "one.npz", [[1.0], [1.0]], [[1.0], [1.0]], [True, False])
    with pytest.raises(ValueError, match="1 clips have image and sound; retrieval needs two"):
        retrieval(RetrievalConfig(str(tmp_path / "one.npz"), str(tmp_path / "x")))
