"""`embed`: write an encoder's features of clips; a stopped run goes on where it was.

Clips are done in parts of a few hundred, each a file beside the one asked for, which they are joined into at the end.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepavfusion.atomic import write_text
from deepavfusion.audio import log_mel
from deepavfusion.configuration import TrainingConfig
from deepavfusion.data.clips import Clip
from deepavfusion.data.dataset import Batch, ClipSet
from deepavfusion.data.features import join_parts, remove_parts, save_arrays
from deepavfusion.data.loading import ClipLoader, evaluation_loader
from deepavfusion.data.views import CentreView
from deepavfusion.evaluation.config import EmbedConfig
from deepavfusion.evaluation.coverage import ClipSelection, Coverage, coverage, select_clips
from deepavfusion.evaluation.loop import Outcome, Predictions, Progress, predict_all
from deepavfusion.images import normalize
from deepavfusion.models import EarlyFusionEncoder
from deepavfusion.models.classifier import mean_pool, streams_of
from deepavfusion.models.config import config_record
from deepavfusion.models.starting_point import digest_weights, encoder_config, load_encoder
from deepavfusion.training.processes import Processes, autocast_dtype


@dataclass(frozen=True)
class EmbedSummary:
    """What was written."""

    out: str
    num_clips: int
    """Clips with features."""
    num_continued: int
    """Clips that an earlier, stopped run had done."""
    encoder_digest: str
    """Hash of the encoder's weights."""
    coverage: Coverage


class Embedder:
    """What the evaluation loop asks, for an encoder's features."""

    def __init__(
        self, encoder: EarlyFusionEncoder, clips: Sequence[Clip], config: EmbedConfig, dtype: torch.dtype | None
    ) -> None:
        self.encoder, self.clips, self.config, self.dtype = encoder, clips, config, dtype

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
            tokens = self.encoder(image, audio, image_present=image_present, audio_present=audio_present)
        rows = streams_of(tokens)
        if self.config.tokens == "pooled":
            rows = mean_pool(rows)
        values = {name: x.float() for name, x in rows.items()}
        lacking = (~(image_present | audio_present)).nonzero()[:, 0].tolist()
        missing = {"image": "no picture", "audio": "no sound", "both": "neither picture nor sound"}[modalities]
        failed = {place: causes.get(batch.ids[place], missing) for place in lacking}
        return Outcome({**values, "image_present": image_present, "audio_present": audio_present}, failed)


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
    processes = Processes(TrainingConfig(device=config.device))
    summary = _embed(config, processes, progress)
    processes.close()
    return summary


def build_encoder(config: EmbedConfig) -> EarlyFusionEncoder:
    """The encoder in evaluation mode, trained or as it is initialised."""
    torch.manual_seed(config.seed)
    encoder = EarlyFusionEncoder(encoder_config(config.from_))
    if not config.untrained:
        load_encoder(encoder, config.from_)
    return encoder.eval()


def _embed(config: EmbedConfig, processes: Processes, progress: Progress | None) -> EmbedSummary | None:
    selection = select_clips(config.data.source, config.data.split, needs_label=False)
    encoder = build_encoder(config).to(processes.device)
    digest = digest_weights(encoder)
    settings = {
        "encoder_digest": digest,
        **{name: getattr(config, name) for name in ("from_", "tokens", "modalities", "untrained", "precision")},
        "encoder_config": config_record(encoder.config),
        "view": "centre",
        "split": config.data.split,
        "clips_digest": _digest(selection),
    }
    folder, num_parts = Path(f"{config.out}.parts"), math.ceil(len(selection.clips) / config.clips_per_part)
    _open_folder(folder, {**settings, "clips_per_part": config.clips_per_part}, processes)
    dtype, done, continued = autocast_dtype(config.precision, processes.device.type), 0, 0
    for number in range(num_parts):
        clips = selection.clips[number * config.clips_per_part : (number + 1) * config.clips_per_part]
        path = _part(folder, number)
        # Every process sees the same files: the first writes a part only when all have gathered it.
        if path.is_file():
            continued += len(clips)
        else:
            embedder = Embedder(encoder, clips, config, dtype)
            predictions = predict_all(embedder, processes, config.batch_size, config.data.num_workers)
            if processes.first:
                _write_part(path, clips, predictions)
        processes.wait()
        done += len(clips)
        if progress is not None:
            progress(done, len(selection.clips))
    if not processes.first:
        return None
    return _join(config, selection, folder, num_parts, settings, continued)


def _join(
    config: EmbedConfig,
    selection: ClipSelection,
    folder: Path,
    num_parts: int,
    settings: dict[str, Any],
    continued: int,
) -> EmbedSummary:
    parts = [_part(folder, number) for number in range(num_parts)]
    failed = {name: cause for part in parts for name, cause in json.loads(_failures(part).read_text()).items()}
    scored = [clip.id for clip in selection.clips if clip.id not in failed]
    if not scored:
        raise ValueError(f"{selection.source}: not one clip could be read, for example {next(iter(failed.items()))}")
    filled = [part for part in parts if _has_rows(part)]
    record = {"source": config.data.source, "missing": selection.missing, "quarantined": selection.quarantined}
    join_parts(filled, Path(config.out), {**settings, **record, "failed": failed})
    remove_parts(folder)
    return EmbedSummary(
        config.out, len(scored), continued, settings["encoder_digest"], coverage(selection, scored, failed)
    )


def _write_part(path: Path, clips: Sequence[Clip], predictions: Predictions) -> None:
    """Features of the clips that could be read, then the failures; the npz, which says that a part is done, last."""
    write_text(_failures(path), json.dumps(predictions.failed))
    kept = [clips[position] for position in predictions.positions]
    save_arrays(
        path,
        {
            "ids": np.array([clip.id for clip in kept], dtype=np.str_),
            "labels": np.array([clip.label or "" for clip in kept], dtype=np.str_),
            "splits": np.array([clip.split or "" for clip in kept], dtype=np.str_),
            **predictions.values,
        },
    )


def _open_folder(folder: Path, settings: dict[str, Any], processes: Processes) -> None:
    """Make the folder of parts, or see that the one there belongs to the same embedding."""
    record, text = folder / "settings.json", json.dumps(settings, indent=1, sort_keys=True)
    if record.is_file() and record.read_text(encoding="utf-8") != text:
        raise ValueError(f"{folder}: holds parts of another embedding; remove it, or give another --out")
    processes.wait()
    if processes.first:
        write_text(record, text)
    processes.wait()


def _part(folder: Path, number: int) -> Path:
    return folder / f"part_{number:06d}.npz"


def _has_rows(part: Path) -> bool:
    with np.load(part) as file:
        return bool(file["ids"].size)


def _failures(part: Path) -> Path:
    return part.with_suffix(".failed.json")


def _digest(selection: ClipSelection) -> str:
    """A hash of the clips and their labels, in order."""
    rows = "\n".join(f"{clip.id}\t{clip.label}\t{clip.split}" for clip in selection.clips)
    return hashlib.blake2b(rows.encode(), digest_size=8).hexdigest()
