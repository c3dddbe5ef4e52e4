"""Files of features, and batches of them for training and evaluation without decoding.

A file holds an encoder's features of the centre view of every clip, pooled, all tokens, or of the joint space:

    ids, labels, splits               (N,) text; empty where unknown
    image, audio, fusion              (N, D) pooled or joint, (N, T, D) tokens; one the encoder did not get is missing
    image_present, audio_present      (N,) bool
    meta                              JSON: encoder, its digest, settings, clips that are missing or could not be read

Shapes: `N` clips, `T` tokens, `D` width, `B` batch.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from deepavfusion.atomic import replacing
from deepavfusion.data.clips import Clip
from deepavfusion.data.dataset import Batch, Failure

FORMAT = 1
STREAMS = ("image", "audio", "fusion")
_TEXT = ("ids", "labels", "splits")


@dataclass(frozen=True, eq=False)
class Features:
    """Features of clips, in memory."""

    place: str
    """The file."""
    ids: tuple[str, ...]
    labels: tuple[str | None, ...]
    splits: tuple[str | None, ...]
    streams: dict[str, NDArray[np.float32]]
    """By stream, `(N, D)` or `(N, T, D)`."""
    image_present: NDArray[np.bool_]
    audio_present: NDArray[np.bool_]
    meta: dict[str, Any]

    @property
    def failed(self) -> dict[str, str]:
        """Clips that could not be read, with the cause."""
        return dict(self.meta["failed"])

    def check(self, encoder_digest: str, modalities: str, pooled: bool, joint: bool = False) -> None:
        """Raise ValueError unless these are features of that very encoder, shown those modalities.

        Args:
            encoder_digest: of the encoder's weights.
            modalities: that the encoder was shown.
            pooled: whether pooled features will do; otherwise all tokens are needed.
            joint: whether vectors of the joint space will do as well as pooled features.
        """
        if self.meta["tokens"] == "joint" and not joint:
            raise ValueError(f"{self.place}: holds the joint space; write the tokens with --tokens pooled or all")
        if self.meta["tokens"] != "all" and not pooled:
            raise ValueError(f"{self.place}: holds pooled features; write all tokens with --tokens all")
        if self.meta["encoder_digest"] != encoder_digest:
            raise ValueError(
                f"{self.place}: was written with another encoder ({self.meta['from_']}, weights "
                f"{self.meta['encoder_digest']}, here {encoder_digest}); embed the clips with this one"
            )
        if self.meta["modalities"] != modalities:
            raise ValueError(f"{self.place}: was written with --modalities {self.meta['modalities']}, not {modalities}")

    def rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Rows of the clips `ids`, -1 for a clip that could not be read.

        Raises:
            ValueError: a clip is not in the file.
        """
        places = {name: place for place, name in enumerate(self.ids)} | dict.fromkeys(self.failed, -1)
        lacking = [name for name in ids if name not in places]
        if lacking:
            raise ValueError(f"{self.place}: has no features of {len(lacking)} clips, such as {lacking[0]}")
        return np.array([places[name] for name in ids], dtype=np.int64)

    def batch(self, rows: NDArray[np.int64], numbers: Sequence[int], clips: Sequence[Clip]) -> FeatureBatch:
        """The features of some clips as a batch; of a clip with row -1 both tracks are absent, as it has failed."""
        absent, there = torch.zeros(len(rows), 0), rows >= 0
        image, audio, fusion = (
            torch.from_numpy(self.streams[name][rows]) if name in self.streams else absent for name in STREAMS
        )
        return FeatureBatch(
            image=absent.byte(),
            waveform=absent,
            image_present=torch.from_numpy(self.image_present[rows] & there),
            audio_present=torch.from_numpy(self.audio_present[rows] & there),
            image_noise=None,
            audio_noise=None,
            sample_numbers=list(numbers),
            ids=[clip.id for clip in clips],
            labels=[clip.label for clip in clips],
            failures=[
                Failure(c.id, self.failed[c.id]) for c, is_there in zip(clips, there, strict=True) if not is_there
            ],
            image_features=image,
            audio_features=audio,
            fusion_features=fusion,
        )


@dataclass(frozen=True, kw_only=True)
class FeatureBatch(Batch):
    """A batch that holds features in place of pictures and sound (those fields have no elements)."""

    image_features: Tensor
    """`(B, D)` pooled, `(B, T, D)` tokens; no elements where the encoder saw no pictures."""
    audio_features: Tensor
    """The same; no elements where the encoder heard no sound."""
    fusion_features: Tensor
    """The same."""

    def by_stream(self) -> dict[str, Tensor]:
        """The features by stream, without the streams that the encoder did not see."""
        streams = {name: getattr(self, f"{name}_features") for name in STREAMS}
        return {name: x for name, x in streams.items() if x.numel()}


class FeatureSet(Dataset[Any]):
    """Features in the order of a list of clips. Whole batches are fetched at once: use `collate_fn=whole_batch`."""

    def __init__(self, features: Features, clips: Sequence[Clip]) -> None:
        self.features, self.clips = features, list(clips)
        self.rows = features.rows([clip.id for clip in self.clips])

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> FeatureBatch:
        return self.__getitems__([index])

    def __getitems__(self, numbers: list[int]) -> FeatureBatch:
        places = self.places(numbers)
        return self.features.batch(self.rows[places], numbers, [self.clips[i] for i in places])

    def places(self, numbers: list[int]) -> list[int]:
        """Which clips the sample numbers stand for."""
        return numbers


def whole_batch(batch: Any) -> Any:
    """What `FeatureSet` gives is collated already."""
    return batch


def read_features(place: str) -> Features:
    """Read a file written by `embed`.

    Raises:
        ValueError: there is none, it is none, or of a newer format.
    """
    if not place.endswith(".npz"):
        raise ValueError(f"{place}: features are read from .npz files; write one with `deepavfusion embed --out X.npz`")
    try:
        content = read_arrays(place)
        meta = json.loads(str(content["meta"]))
        texts = {name: tuple(content[name].tolist()) for name in _TEXT}
        newer = meta["format"] > FORMAT
        image_present, audio_present = content["image_present"], content["audio_present"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{place}: no features written by `deepavfusion embed` ({error})") from error
    if newer:
        raise ValueError(f"{place}: format {meta['format']} is newer than this package's {FORMAT}")
    streams = {name: content[name] for name in STREAMS if name in content}
    for name, rows in streams.items():
        bad = np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1))
        if len(bad):
            raise ValueError(
                f"{place}: {name} features of {len(bad)} of {len(rows)} clips are NaN, such as of "
                f"{texts['ids'][bad[0]]}: the model that wrote them is damaged"
            )
    return Features(
        place,
        texts["ids"],
        tuple(label or None for label in texts["labels"]),
        tuple(split or None for split in texts["splits"]),
        streams,
        image_present,
        audio_present,
        meta,
    )


def read_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """All arrays of an npz file by name.

    Raises:
        ValueError: there is none, it is something else or damaged; says only what is wrong.
    """
    try:
        with np.load(path) as file:
            return dict(file)
    except Exception as error:  # bytes that are no npz file end in errors of every kind
        empty = isinstance(error, EOFError)
        raise ValueError("it is empty" if empty else str(error) or type(error).__name__) from error


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays by name as an npz file, whole or not at all."""
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)


def join_parts(parts: Sequence[Path], out: Path, meta: dict[str, Any]) -> None:
    """Join part files into the one asked for, array by array, so that all need never be in memory at once.

    Args:
        parts: npz files in the layout of the whole, without `meta`; at least one.
        out: `.npz` or `.parquet`.
        meta: what the file tells of itself.

    Raises:
        ValueError: parquet without pyarrow.
    """
    writers = {".npz": _join_npz, ".parquet": _join_parquet}
    with replacing(out) as temporary:
        writers[out.suffix](parts, temporary, {"format": FORMAT, **meta})


def _join_npz(parts: Sequence[Path], out: Path, meta: dict[str, Any]) -> None:
    names = _names(parts)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in names:
            shape, dtype = _joined_shape(parts, name)
            with archive.open(_member(name), "w", force_zip64=True) as file:
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_2_0(file, header)
                for rows in _rows_of(parts, name):
                    file.write(np.ascontiguousarray(rows, dtype=dtype).tobytes())
        with archive.open(_member("meta"), "w") as file:
            np.lib.format.write_array(file, np.array(json.dumps(meta)))


def _member(name: str) -> zipfile.ZipInfo:
    """An array's place in an npz file. Without the time of writing: the same features are the same bytes."""
    return zipfile.ZipInfo(f"{name}.npy")


def _join_parquet(parts: Sequence[Path], out: Path, meta: dict[str, Any]) -> None:
    try:
        pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ValueError(
            f"out {out.suffix}: writing Parquet needs the extra: pip install 'deepavfusion[parquet]'"
        ) from error
    writer = None
    try:
        for part in parts:
            with np.load(part) as file:
                columns = {name: _column(pa, file[name]) for name in file.files}
                shapes = {name: list(file[name].shape[1:]) for name in file.files if file[name].ndim > 1}
            record = json.dumps({**meta, "shapes": shapes})
            table = pa.table(columns).replace_schema_metadata({"deepavfusion": record})
            writer = writer or pq.ParquetWriter(out, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _column(pa: Any, array: NDArray[Any]) -> Any:
    if array.ndim == 1:
        return pa.array(array.tolist(), pa.string() if array.dtype.kind == "U" else pa.bool_())
    width = int(np.prod(array.shape[1:]))  # all tokens of a clip in one list, row by row; `shapes` tells how to cut it
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), width)


def _names(parts: Sequence[Path]) -> list[str]:
    with np.load(parts[0]) as file:
        return list(file.files)


def _rows_of(parts: Sequence[Path], name: str) -> Iterator[NDArray[Any]]:
    for part in parts:
        with np.load(part) as file:
            yield file[name]


def _joined_shape(parts: Sequence[Path], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    shapes, dtypes = zip(*((rows.shape, rows.dtype) for rows in _rows_of(parts, name)), strict=True)
    return (sum(shape[0] for shape in shapes), *shapes[0][1:]), np.result_type(*dtypes)


def remove_parts(folder: Path) -> None:
    """Remove a folder of part files."""
    for path in folder.iterdir():
        path.unlink()
    os.rmdir(folder)
