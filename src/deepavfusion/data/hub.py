"""Data sets of the Hugging Face Hub, and local ones of the same form, as a source of clips.

A source `hf:OWNER/NAME[:SPLIT][:KEY=VALUE,...]` is listed with the library `datasets`, which finds splits, files and
types of columns; without a split all are taken. The media are not touched: of Parquet files only the columns of labels
and ids are read. What is listed are clips whose paths say where each row lies (`rows`), so they are drawn, divided and
continued like those of any source, and decoded by the same reader. Files of the Hub are named with the commit that was
current, so that a manifest of them means the same for ever.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from deepavfusion.data.clip import LABEL_SEPARATOR, Clip
from deepavfusion.data.clip_names import stem_of
from deepavfusion.data.locations import is_url, one_line, open_bytes

PREFIX = "hf:"
KINDS = ("video", "image", "audio")
"""What a column of media can be; a `video` has its own sound unless there is `audio` too."""
KEYS = (*KINDS, "label", "id", "config", "revision")
"""What a source can name besides the split: columns, and of the data set its configuration and revision."""
_FORM = f"{PREFIX}OWNER/NAME[:SPLIT][:KEY=VALUE,...]"
_ARCHIVES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_TYPES = {"video": "Video", "image": "Image", "audio": "Audio"}


def is_hub(source: str) -> bool:
    """Whether a source is a data set of the Hub or of its form; `hf://` is a URL instead."""
    return source.startswith(PREFIX) and not is_url(source)


@dataclass(frozen=True)
class HubSource:
    """What a source names."""

    text: str
    """The source itself, for messages."""
    place: str
    """`OWNER/NAME`, or a local folder or Parquet file."""
    split: str | None
    """None for all."""
    named: Mapping[str, str]
    """What is named of `KEYS`."""

    @classmethod
    def parse(cls, source: str) -> HubSource:
        """Raises ValueError for what has not the form, a key there is not, or a local place that is not there."""
        parts = source.removeprefix(PREFIX).split(":")
        pairs = parts.pop().split(",") if len(parts) > 1 and "=" in parts[-1] else []
        split = parts.pop() if len(parts) > 1 and not os.path.exists(":".join(parts)) else None
        named: dict[str, str] = {}
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key not in KEYS:
                near = difflib.get_close_matches(key, KEYS, n=1)
                fix = f"did you mean {near[0]}?" if near else f"there are {', '.join(KEYS)}"
                raise ValueError(f"{source}: unknown key {key!r}; {fix}")
            if not value or key in named:
                raise ValueError(f"{source}: {key} needs one value, as in {key}=NAME")
            named[key] = value
        place = os.path.expanduser(":".join(parts))
        if not os.path.exists(place):
            if place.startswith(("/", ".", "~")) or place.endswith(".parquet"):
                raise ValueError(f"{source}: no such folder or Parquet file")
            if not re.fullmatch(r"[\w.-]+/[\w.-]+", place):
                raise ValueError(f"{source}: expected {_FORM}, or a local folder or Parquet file for OWNER/NAME")
        return cls(source, place, split or None, named)


def list_hub(source: str) -> list[Clip]:
    """The clips of a data set: of its splits in turn, in the order of their rows.

    A clip's id is `SPLIT/ROW` unless a column of ids is named, its split that of the data set, its label what the
    column of type ClassLabel says, or one named `label`.

    Raises:
        ValueError: the extra `hub` is missing, no such data set, split or column, a choice of columns that is not
            clear, ids that occur twice, or a data set stored in a way that is not read; names the fix.
    """
    asked = HubSource.parse(source)
    try:
        import datasets
    except ImportError as error:
        raise ValueError(f"{source}: needs the extra: pip install 'deepavfusion[hub]'") from error
    with _quiet(datasets):
        builder, streams = _opened(datasets, asked)
        splits = {str(name): stream for name, stream in streams.items()}
        if asked.split is not None and asked.split not in splits:
            raise ValueError(f"{source}: no split {asked.split!r}; it has {', '.join(splits)}")
        files = {str(name): [str(file) for file in found] for name, found in (builder.config.data_files or {}).items()}
        chosen = [asked.split] if asked.split else list(splits)
        clips = [clip for name in chosen for clip in _split_clips(asked, name, splits[name], files.get(name, []))]
    if not clips:
        raise ValueError(f"{source}: holds no rows")
    first: dict[str, str] = {}
    for clip in clips:
        if first.setdefault(clip.id, clip.path) != clip.path:
            raise ValueError(
                f"{source}: id {clip.id!r} occurs in {first[clip.id]} and {clip.path}; name a column of unique ids, or "
                f"none for SPLIT/ROW"
            )
    return clips


def _opened(datasets: Any, asked: HubSource) -> tuple[Any, Mapping[Any, Any]]:
    """What `datasets` knows of a data set, and its splits as streams, of which nothing was read."""
    place, settings = asked.place, {"name": asked.named.get("config"), "revision": asked.named.get("revision")}
    if os.path.exists(place):
        if settings["revision"]:
            raise ValueError(f"{asked.text}: a local data set has no revision")
        place = os.path.abspath(place)
        if os.path.isfile(place):
            if not place.endswith(".parquet"):
                raise ValueError(f"{asked.text}: a file, but no Parquet file; give the data set's folder")
            place, settings = "parquet", {"data_files": place}
    try:
        builder = datasets.load_dataset_builder(place, **settings)
        return builder, builder.as_streaming_dataset()
    except Exception as error:
        raise ValueError(f"{asked.text}: {_told(error)}") from error


def _told(error: Exception) -> str:
    """What an exception of `datasets` says, in one line: its kind where it is none for users."""
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if text.startswith("Config name is missing"):
        found = re.search(r"\[.*?\]", text)
        return f"has several configurations {found[0] if found else ''}; name one: config=NAME"
    known = isinstance(error, (ValueError, FileNotFoundError))
    return one_line(text if known and text else f"{type(error).__name__}: {text}".rstrip(": "))


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Without the bars of `datasets`, which would mix with those of the commands."""
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


@dataclass(frozen=True)
class _Columns:
    """Which columns of a split are read."""

    media: dict[str, str]
    """By kind."""
    label: str | None
    id: str | None
    features: Mapping[str, Any]

    @property
    def light(self) -> list[str]:
        """What is read to list the rows; of a file, its name."""
        names = [name for name in (self.label, self.id) if name is not None]
        return list(dict.fromkeys(f"{name}.path" if name in self.media.values() else name for name in names))

    def clip(self, split: str, row: int, path: str, values: Mapping[str, Any], place: str) -> Clip:
        """A row as a clip. Raises ValueError for an empty id or a label that cannot be one."""
        name = f"{split}/{row}"
        if self.id is not None:
            value = values.get(self.id)
            value = stem_of(value["path"] or "") if isinstance(value, dict) else value
            if value in (None, ""):
                raise ValueError(f"{place}: row {row} of split {split} has no {self.id}, which was named for ids")
            name = one_line(str(value))
        label = None
        if self.label is not None:
            try:
                label = _label(self.features[self.label], values.get(self.label))
            except ValueError as error:
                raise ValueError(f"{place}: row {row} of split {split}: {error}; or label=none") from None
        return Clip(name, path, label, split)


def _split_clips(asked: HubSource, split: str, stream: Any, files: Sequence[str]) -> Iterable[Clip]:
    features = stream.features
    if files and all(file.endswith(".parquet") for file in files):
        return _parquet_clips(_columns(asked, features), split, files, asked.text)
    if files and all(file.endswith(".tar") for file in files) and features and "__key__" in features:
        return _tar_clips(asked, features, split, files)
    packed = next((file for file in files if file.lower().endswith(_ARCHIVES)), None)
    if packed is not None:
        raise ValueError(
            f"{asked.text}: is packed in archives ({os.path.basename(packed)}), of which no clip can be read alone; "
            f"unpack them and give the folder, or convert it with `datasets`: load_dataset(...).to_parquet(...)"
        )
    return _file_clips(asked, _columns(asked, features), split, stream)


def _parquet_clips(columns: _Columns, split: str, files: Sequence[str], source: str) -> Iterator[Clip]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    from deepavfusion.data.rows import RowPlace

    count = 0
    for place in files:
        place = place if is_url(place) else os.path.abspath(place)
        try:
            with open_bytes(place) as handle, ParquetFile(handle) as parquet:
                there = set(parquet.schema_arrow.names)
                lacking = [name for name in (*columns.media.values(), columns.label, columns.id) if name]
                lacking = [name for name in lacking if name not in there]
                num_rows, light = parquet.metadata.num_rows, columns.light
                table = parquet.read(columns=light, use_threads=False).to_pylist() if light and not lacking else None
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(f"{source}: {place} cannot be read ({_told(error)})") from error
        if lacking:
            raise ValueError(
                f"{source}: {place} has no column {lacking[0]}; its columns are {', '.join(sorted(there))}"
            )
        for row in range(num_rows):
            path = RowPlace(place, row, columns.media).path
            yield columns.clip(split, count, path, table[row] if table is not None else {}, source)
            count += 1


def _tar_clips(asked: HubSource, features: Mapping[str, Any], split: str, files: Sequence[str]) -> Iterator[Clip]:
    """Samples of WebDataset's form; each file is read through for them."""
    from deepavfusion.data.local_copies import local_copy
    from deepavfusion.data.rows import RowPlace
    from deepavfusion.data.tar_samples import tar_samples

    inner = features.get("json")
    if isinstance(inner, dict):
        features = {**features, **{f"json.{name}": feature for name, feature in inner.items()}}
    columns = _columns(asked, features)
    if columns.label is None and "label" not in asked.named and "cls" in features:
        columns = replace(columns, label="cls")
    media, count = columns.media, 0
    wanted = {name for name in (columns.label, columns.id) if name and name not in (*media.values(), "__key__")}
    for place in files:
        try:
            for row, sample in enumerate(tar_samples(local_copy(place), wanted)):
                parts = {kind: sample.parts[name] for kind, name in media.items() if name in sample.parts}
                parts = parts or {next(iter(media)): (0, 0)}  # reading it says that there is nothing
                where = {kind: f"{start}+{size}" for kind, (start, size) in parts.items()}
                path = RowPlace(place if is_url(place) else os.path.abspath(place), row, where).path
                names = dict.fromkeys((*media.values(), "__key__"), PurePosixPath(sample.key).name)
                yield columns.clip(split, count, path, sample.values | names, asked.text)
                count += 1
        except (OSError, tarfile.TarError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{asked.text}: {place} cannot be read ({_told(error)})") from error


def _file_clips(asked: HubSource, columns: _Columns, split: str, stream: Any) -> Iterator[Clip]:
    """Rows that name files, as those of folders do."""
    if len(columns.media) > 1 or "image" in columns.media:
        raise ValueError(
            f"{asked.text}: its rows name files of {' and '.join(columns.media)}; name one with picture and sound "
            f"(video=COLUMN), or store the files in Parquet: load_dataset(...).to_parquet(...)"
        )
    media = next(iter(columns.media.values()))
    wanted = list(dict.fromkeys(name for name in (media, columns.label, columns.id) if name is not None))
    try:
        for count, values in enumerate(stream.decode(False).select_columns(wanted)):
            value = values[media]
            path = value.get("path") if isinstance(value, dict) else None
            if not path or "::" in path or value.get("bytes") is not None:
                raise ValueError(
                    "is neither Parquet nor a folder of files, so no clip can be read alone; convert it with "
                    "`datasets`: load_dataset(...).to_parquet(...)"
                )
            path = path if is_url(path) else os.path.abspath(path)
            yield columns.clip(split, count, path, values, asked.text)
    except Exception as error:
        told = str(error).removeprefix(f"{asked.text}: ") if isinstance(error, ValueError) else _told(error)
        raise ValueError(f"{asked.text}: {told}") from error


def _columns(asked: HubSource, features: Mapping[str, Any] | None) -> _Columns:
    """The columns to read: those that are named, else those whose types tell."""
    if features is None:
        raise ValueError(f"{asked.text}: its columns have no types; convert it to Parquet with `datasets`")
    listed = ", ".join(f"{name} ({_type(feature)})" for name, feature in features.items())
    for key in (*KINDS, "label", "id"):
        name = asked.named.get(key)
        if name is not None and name not in features and not (key == "label" and name == "none"):
            raise ValueError(f"{asked.text}: no column {name!r} for {key}; its columns are {listed}")
    media = {kind: asked.named[kind] for kind in KINDS if kind in asked.named}
    for kind, name in media.items():
        if _type(features[name]) not in ("Video", "Audio", "Image") and not _is_bytes(features[name]):
            raise ValueError(f"{asked.text}: {kind}={name} is {_type(features[name])}, not media or bytes; {listed}")
    media = media or _media(asked, features, listed)
    label = asked.named.get("label") or _label_column(asked, features)
    return _Columns(media, None if label == "none" else label, asked.named.get("id"), features)


def _media(asked: HubSource, features: Mapping[str, Any], listed: str) -> dict[str, str]:
    found = {kind: [name for name, f in features.items() if _type(f) == _TYPES[kind]] for kind in KINDS}
    if found["video"]:
        found["image"] = []  # thumbnails of it
    elif not found["image"] and not found["audio"]:
        found["video"] = [name for name, feature in features.items() if _is_bytes(feature)]
    for kind, names in found.items():
        if len(names) > 1:
            raise ValueError(
                f"{asked.text}: {' and '.join(names)} could each be the {kind}; name one, as in {asked.text}"
                f"{',' if asked.named else ':'}{kind}={names[0]}"
            )
    media = {kind: names[0] for kind, names in found.items() if names}
    if not media:
        raise ValueError(f"{asked.text}: no column of video, audio, image or bytes; its columns are {listed}")
    return media


def _label_column(asked: HubSource, features: Mapping[str, Any]) -> str | None:
    found = [name for name, feature in features.items() if _type(_inner(feature)) == "ClassLabel"]
    if len(found) > 1 and "label" not in found:
        raise ValueError(
            f"{asked.text}: {' and '.join(found)} could each be the label; name one (label={found[0]}), or label=none"
        )
    return found[0] if len(found) == 1 else "label" if "label" in features else None


def _label(feature: Any, value: Any) -> str | None:
    """A label as text; several in one cell as manifests have them."""
    several = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    inner, names = _inner(feature), []
    for item in several:
        if item is None or item == "" or (_type(inner) == "ClassLabel" and item == -1):
            continue
        name = one_line(inner.int2str(item) if _type(inner) == "ClassLabel" else str(item))
        if LABEL_SEPARATOR in name:
            raise ValueError(
                f"label {name!r} holds {LABEL_SEPARATOR!r}, which parts several labels; name another column"
            )
        names.append(name)
    return LABEL_SEPARATOR.join(names) or None


def _inner(feature: Any) -> Any:
    """Of a list, the type of its items."""
    return feature.feature if _type(feature) in ("List", "LargeList", "Sequence") else feature


def _type(feature: Any) -> str:
    kind = type(feature).__name__
    return str(feature.dtype) if kind == "Value" else "struct" if kind == "dict" else kind


def _is_bytes(feature: Any) -> bool:
    inner = feature.get("bytes") if isinstance(feature, dict) else feature
    return _type(inner) in ("binary", "large_binary")
