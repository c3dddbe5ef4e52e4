"""`embed`: writes an encoder's features of clips; a stopped run continues.

The clips are divided into parts of a few hundred. Each part is written to a file beside the final one, and all are
joined at the end. In a job array each job writes some of the parts, and a run without `part` afterwards joins them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepavfusion.atomic import write_text
from deepavfusion.audio import log_mel
from deepavfusion.configuration import TrainingConfig
from deepavfusion.data.clips import Clip
from deepavfusion.data.cluster import connected
from deepavfusion.data.dataset import Batch, ClipSet
from deepavfusion.data.features import join_parts, remove_parts, save_arrays
from deepavfusion.data.loading import ClipLoader, evaluation_loader
from deepavfusion.data.parts import parse_part
from deepavfusion.data.views import CentreView
from deepavfusion.evaluation.config import EmbedConfig
from deepavfusion.evaluation.coverage import ClipSelection, Coverage, coverage, select_clips
from deepavfusion.evaluation.loop import Exchange, OneProcess, Outcome, Predictions, Progress, predict_all
from deepavfusion.images import normalize
from deepavfusion.models import AudioVisualMAE, EarlyFusionEncoder, MaskedAutoencoderConfig
from deepavfusion.models.alignment import Alignment
from deepavfusion.models.classifier import mean_pool, streams_of
from deepavfusion.models.no_numbers import NO_NUMBERS, without_numbers
from deepavfusion.storage.model_configs import read_model_config
from deepavfusion.storage.starting_point import digest_weights, encoder_config, load_encoder, model_folder
from deepavfusion.training.processes import Processes, autocast_dtype, resolve_device


@dataclass(frozen=True)
class Piece:
    """Clips whose features are written together, and the file they are written to."""

    path: Path
    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class EmbedSummary:
    """What was written."""

    out: str
    num_clips: int
    """Clips with features, of this part."""
    num_continued: int
    """Clips that an earlier, stopped run had done, of this part."""
    encoder_digest: str
    """Hash of the encoder's weights."""
    coverage: Coverage
    """What of the official clips this part has."""
    num_without_numbers: int
    """Clips for which the encoder's features are not finite, of this part; they count as failed."""
    complete: bool
    """Whether the file is written; a part of a job array leaves that to a run without `part`."""


class Embedder:
    """What the evaluation loop asks, for an encoder's features."""

    def __init__(
        self,
        model: EarlyFusionEncoder | AudioVisualMAE,
        clips: Sequence[Clip],
        config: EmbedConfig,
        dtype: torch.dtype | None,
    ) -> None:
        self.encoder, self.alignment = _parts(model)
        self.clips, self.config, self.dtype = clips, config, dtype

    @property
    def ids(self) -> Sequence[str]:
        return [clip.id for clip in self.clips]

    def loader(self, positions: Sequence[int], batch_size: int, num_workers: int, device: torch.device) -> ClipLoader:
        clips = ClipSet([self.clips[i] for i in positions], CentreView.from_config(self.encoder.config))
        return evaluation_loader(clips, batch_size, num_workers, device)

    def predict(self, batch: Batch, device: torch.device) -> Outcome:
        """Streams by name, pooled or as they are, and the two flags."""
        modalities = self.config.modalities
        causes = {failure.clip_id: failure.cause for failure in batch.failures}
        views = batch.to(device)
        image = None if modalities == "audio" else normalize(views.image)
        audio = None if modalities == "image" else log_mel(views.waveform, self.encoder.config.audio_size[0])
        image_present = views.image_present & (image is not None)
        audio_present = views.audio_present & (audio is not None)
        with torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype is not None):
            rows = self._rows(image, audio, image_present, audio_present)
        values = {name: x.float() for name, x in rows.items()}
        lacking = (~(image_present | audio_present)).nonzero()[:, 0].tolist()
        missing = {"image": "no picture", "audio": "no sound", "both": "neither picture nor sound"}[modalities]
        failed = {place: causes.get(batch.ids[place], missing) for place in lacking}
        has = {"image": image_present, "audio": audio_present, "fusion": image_present | audio_present}
        silent: frozenset[int] = frozenset().union(*(without_numbers(x, has[name]) for name, x in values.items()))
        failed |= dict.fromkeys(silent, NO_NUMBERS)
        return Outcome({**values, "image_present": image_present, "audio_present": audio_present}, failed, silent)

    def _rows(
        self, image: Tensor | None, audio: Tensor | None, image_present: Tensor, audio_present: Tensor
    ) -> dict[str, Tensor]:
        """What is written of each stream."""
        if self.alignment is not None:
            alone = {
                "image": self.encoder(image, None, image_present=image_present),
                "audio": self.encoder(None, audio, audio_present=audio_present),
            }
            return {name: self.alignment.embed(out) for name, out in alone.items()}
        tokens = self.encoder(image, audio, image_present=image_present, audio_present=audio_present)
        return mean_pool(streams_of(tokens)) if self.config.tokens == "pooled" else streams_of(tokens)


def embed(config: EmbedConfig, progress: Progress | None = None) -> EmbedSummary | None:
    """Write features.

    Args:
        config: which encoder and clips, and where to.
        progress: is told how many clips are done.

    Returns:
        What was written; None in every process but the first.

    Raises:
        ValueError: no such encoder or clips, parts of another run in the way, or not one clip could be read.
    """
    if config.ray is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"ray {config.ray}: distributes the clips itself; start it without torchrun")
    # With a cluster, this process only learns what the encoder is; the machine may have no GPU.
    processes = Processes(TrainingConfig(device=config.device if config.ray is None else "cpu"))
    summary = _embed(config, processes, progress)
    processes.close()
    return summary


def build_model(config: EmbedConfig) -> EarlyFusionEncoder | AudioVisualMAE:
    """The encoder in evaluation mode, trained or as it is initialised; the pre-trained model where it is the joint
    space that is asked for.

    Raises:
        ValueError: there is no such encoder, or it has no joint space.
    """
    if config.tokens == "joint":
        folder = model_folder(config.from_)
        _, saved = read_model_config(folder / "config.json")
        if not isinstance(saved, MaskedAutoencoderConfig) or not saved.alignment.weight:
            raise ValueError(
                f"from {config.from_}: has no joint space; one comes from pretrain with --alignment.weight above 0"
            )
        return AudioVisualMAE.from_pretrained(folder).eval()
    torch.manual_seed(config.seed)
    encoder = EarlyFusionEncoder(encoder_config(config.from_))
    if not config.untrained:
        load_encoder(encoder, config.from_)
    return encoder.eval()


def _embed(config: EmbedConfig, processes: Processes, progress: Progress | None) -> EmbedSummary | None:
    selection = select_clips(config.data.source, config.data.split, needs_label=False)
    model = build_model(config).to(processes.device)
    encoder = _parts(model)[0]
    digest = digest_weights(encoder)
    settings = {
        "encoder_digest": digest,
        **{name: getattr(config, name) for name in ("from_", "tokens", "modalities", "untrained", "precision")},
        "encoder_config": encoder.config.record(),
        "view": "centre",
        "split": config.data.split,
        "clips_digest": _digest(selection),
    }
    folder = Path(f"{config.out}.parts")
    _open_folder(folder, {**settings, "clips_per_part": config.clips_per_part}, processes)
    pieces = _pieces(folder, selection.clips, config.clips_per_part)
    number, count = parse_part(config.part)
    own = pieces[number - 1 :: count]
    # Every process sees the same files: the first writes a piece only when all have gathered it.
    missing = [piece for piece in own if not piece.path.is_file()]
    total = sum(len(piece.clips) for piece in own)
    done = continued = total - sum(len(piece.clips) for piece in missing)
    if progress is not None:
        progress(done, total)
    if config.ray is None:
        finished = (_embed_piece(piece, model, config, processes) for piece in missing)
    else:
        finished = _embed_on_cluster(missing, config, digest)
    with closing(finished):
        for piece in finished:
            processes.wait()
            done += len(piece.clips)
            if progress is not None:
                progress(done, total)
    if not processes.first:
        return None
    failed = {name: cause for piece in own for name, cause in json.loads(_failures(piece.path).read_text()).items()}
    scored = [clip.id for piece in own for clip in piece.clips if clip.id not in failed]
    if own and not scored:
        name, cause = next(iter(failed.items()))
        part = f" of part {config.part}" if count > 1 else ""
        raise ValueError(
            f"{selection.source}: none of the {len(failed)} clips{part} could be read, for example {name}: {cause}; "
            f"remove {folder} before trying again"
        )
    if count == 1:
        _join(config, selection, pieces, settings, failed)
    return EmbedSummary(
        config.out,
        len(scored),
        continued,
        digest,
        coverage(selection, scored, failed),
        sum(cause == NO_NUMBERS for cause in failed.values()),
        complete=count == 1,
    )


def _parts(model: EarlyFusionEncoder | AudioVisualMAE) -> tuple[EarlyFusionEncoder, Alignment | None]:
    """The encoder, and the way from it to the joint space if that is asked for."""
    return (model, None) if isinstance(model, EarlyFusionEncoder) else (model.encoder, model.alignment)


def _embed_piece(
    piece: Piece, model: EarlyFusionEncoder | AudioVisualMAE, config: EmbedConfig, exchange: Exchange
) -> Piece:
    """Write a piece, by all processes together."""
    embedder = Embedder(model, piece.clips, config, autocast_dtype(config.precision, exchange.device.type))
    predictions = predict_all(embedder, exchange, config.batch_size, config.data.num_workers)
    if exchange.rank == 0:
        _write_piece(piece, predictions)
    return piece


def _embed_on_cluster(
    pieces: Sequence[Piece], config: EmbedConfig, encoder_digest: str
) -> Generator[Piece, None, None]:
    """Write pieces on a cluster; each as it is done."""
    if not pieces:
        return
    assert config.ray is not None
    num_cpus = max(1, config.data.num_workers)
    with connected(config.ray, num_cpus) as cluster:
        on_gpu = config.device == "cuda" or (config.device == "auto" and cluster.num_gpus > 0)
        device = "cuda" if on_gpu else "cpu"
        work = partial(embed_piece, config=config, device=device, encoder_digest=encoder_digest)
        for number, _ in cluster.map(work, pieces, num_cpus, num_gpus=int(on_gpu)):
            yield pieces[number]


def embed_piece(piece: Piece, config: EmbedConfig, device: str, encoder_digest: str) -> None:
    """Write a piece, in a worker of a cluster.

    Raises:
        ValueError: the encoder is not the one that the command was started with, or there is no such device.
    """
    model = _loaded(config, resolve_device(device), encoder_digest)
    _embed_piece(piece, model, config, OneProcess(torch.device(device)))


@lru_cache(maxsize=1)  # a worker does one piece after the other
def _loaded(config: EmbedConfig, device: str, encoder_digest: str) -> EarlyFusionEncoder | AudioVisualMAE:
    model = build_model(config)
    digest = digest_weights(_parts(model)[0])
    if digest != encoder_digest:
        raise ValueError(f"from {config.from_}: has weights {digest} here, {encoder_digest} where the command runs")
    return model.to(device)


def _join(
    config: EmbedConfig,
    selection: ClipSelection,
    pieces: Sequence[Piece],
    settings: dict[str, Any],
    failed: dict[str, str],
) -> None:
    """Join the pieces, which are all there, to the file asked for, and remove them."""
    filled = [piece.path for piece in pieces if _has_rows(piece.path)]
    record = {"source": config.data.source, "missing": selection.missing, "quarantined": selection.quarantined}
    join_parts(filled, Path(config.out), {**settings, **record, "failed": failed})
    remove_parts(pieces[0].path.parent)


def _write_piece(piece: Piece, predictions: Predictions) -> None:
    """Features of the clips that could be read, then the failures; the npz, which says that a piece is done, last."""
    write_text(_failures(piece.path), json.dumps(predictions.failed))
    kept = [piece.clips[position] for position in predictions.positions]
    save_arrays(
        piece.path,
        {
            "ids": np.array([clip.id for clip in kept], dtype=np.str_),
            "labels": np.array([clip.label or "" for clip in kept], dtype=np.str_),
            "splits": np.array([clip.split or "" for clip in kept], dtype=np.str_),
            **predictions.values,
        },
    )


def _open_folder(folder: Path, settings: dict[str, Any], processes: Processes) -> None:
    """Make the folder of pieces, or see that the one there belongs to the same embedding."""
    record, text = folder / "settings.json", json.dumps(settings, indent=1, sort_keys=True)
    if record.is_file() and record.read_text(encoding="utf-8") != text:
        raise ValueError(f"{folder}: holds parts of another embedding; remove it, or give another --out")
    processes.wait()
    if processes.first:
        write_text(record, text)
    processes.wait()


def _pieces(folder: Path, clips: Sequence[Clip], clips_per_piece: int) -> list[Piece]:
    starts = range(0, len(clips), clips_per_piece)
    return [
        Piece(folder / f"part_{number:06d}.npz", tuple(clips[start : start + clips_per_piece]))
        for number, start in enumerate(starts)
    ]


def _has_rows(path: Path) -> bool:
    with np.load(path) as file:
        return bool(file["ids"].size)


def _failures(path: Path) -> Path:
    return path.with_suffix(".failed.json")


def _digest(selection: ClipSelection) -> str:
    """A hash of the clips and their labels, in order."""
    rows = "\n".join(f"{clip.id}\t{clip.label}\t{clip.split}" for clip in selection.clips)
    return hashlib.blake2b(rows.encode(), digest_size=8).hexdigest()
