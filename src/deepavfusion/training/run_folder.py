"""The folder of a run: everything needed to know what was done, and to continue it.

    config.yaml        the resolved configuration
    environment.json   one entry per start: package versions, machine, processes
    clips.csv          the clips used, in their order
    metrics.csv        one row per logged step (also as TensorBoard events in tensorboard/)
    probes.csv         what the task measured by itself, where it can
    failures.csv       clips that could not be read: step, clip, cause
    checkpoints/       what a stopped run continues from
    pictures/          pictures of the task, learning_curve.png
    model/             the trained model, once the run is finished

Starting the same command again continues the run; a different configuration is refused.
"""

from __future__ import annotations

import csv
import functools
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml  # type: ignore[import-untyped]

from deepavfusion.atomic import NotWrittenError, replacing, write_text, writing
from deepavfusion.configuration import AdapterConfig, in_todays_words
from deepavfusion.data.clips import Clip, column_of, read_manifest, write_manifest
from deepavfusion.data.stamps import file_changes, stamped
from deepavfusion.models.config import AlignmentConfig
from deepavfusion.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAY_CHANGE = frozenset(
    {
        "run_dir",
        "data.source",
        "data.num_workers",
        "data.accept_changed",
        "optim.warmup_share",
        *(
            f"training.{name}"
            for name in (
                "accumulation",
                "device",
                "strategy",
                "compile",
                "gradient_checkpointing",
                "checkpoint_every",
                "keep_checkpoints",
                "log_every",
                "picture_every",
                "probe_every",
                "max_failures",
                "wandb",
                "mlflow",
            )
        ),
    }
)
"""Settings that a continued run may change: they alter the result not at all, or (accumulation, device, strategy,
compile, gradient_checkpointing) by rounding. data.source may move, the clips found there may not change.
optim.warmup_share is compared as the optim.warmup_epochs that it comes to."""
CAME_LATER: dict[str, Any] = {
    "model.num_frames": 1,
    "model.patch_embed": "linear",
    "head.stride": 0,
    "init.encoder": None,
    "model.encode_frames": "all",
    "num_frames": None,
    "encode_frames": "all",
    "keep_heads": False,
    "autoencoder.decoder_form": "self",
    "autoencoder.predicted_share": 1.0,
    "autoencoder.weight": 1.0,
    **{f"alignment.{name}": value for name, value in asdict(AlignmentConfig()).items()},
    "data.colour": 0.0,
    "data.frame": "random",
    "data.noise": 0.0,
    "data.still": 0.0,
    "training.ema": 0.0,
    **{f"lora.{name}": value for name, value in asdict(AdapterConfig()).items()},
}
"""Settings that earlier versions did not have, and what they meant without them: their runs continue."""

_PACKAGES = (
    "torch", "numpy", "av", "lightning-fabric", "jsonargparse", "safetensors", "huggingface-hub", "soundfile", "soxr",
    "matplotlib", "tensorboard", "pillow",
)  # fmt: skip


@dataclass(frozen=True)
class FilesCheck:
    """What a look at the clips' files found."""

    clips: Sequence[Clip]
    """With size and time of their files."""
    news: bool = False
    """Whether these are not those of the run's clips.csv."""
    message: str | None = None
    """What is worth saying."""


class RunFolder:
    """Paths and files of one run. Only the first process of a run writes."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.pictures = self.path / "pictures"
        self.tensorboard = self.path / "tensorboard"
        self.model = self.path / "model"
        self.metrics = self.path / "metrics.csv"
        self.failures = self.path / "failures.csv"
        self.probes = self.path / "probes.csv"

    def check_files(self, clips: Sequence[Clip], accept_changed: bool) -> FilesCheck:
        """Compare the clips' files with what they were when the run here began, if there is one; nothing is written.

        Args:
            clips: the same clips (`check`).
            accept_changed: take files that were replaced.

        Raises:
            ValueError: files were replaced; names them and what can be done.
        """
        now = stamped(clips)
        if not self._clips.exists():
            return FilesCheck(now)
        before = read_manifest(str(self._clips))
        changes = file_changes(before, now)
        if changes.replaced:
            some = [clip for clip in now if clip.id in changes.replaced][:3]
            named = ", ".join(f"{clip.id} ({clip.path}: {changes.replaced[clip.id]})" for clip in some)
            count, more = len(changes.replaced), ", ..." if len(changes.replaced) > len(some) else ""
            if not accept_changed:
                raise ValueError(
                    f"{self.path} holds a run on clips of which {count} were replaced since: {named}{more}. Put the "
                    f"files back, give another --run_dir, or --data.accept_changed true to go on with them as they are"
                )
            return FilesCheck(now, True, f"warning: {count} clips were replaced since this run began: {named}{more}")
        if changes.copied:
            return FilesCheck(
                now,
                True,
                "warning: every clip's file has the size that it had when this run began and another time: taken for "
                "copies of the same",
            )
        return FilesCheck(now, any(clip.num_bytes is None for clip in before))  # of an earlier version

    def check(self, config: dict[str, Any], clips: Sequence[Clip]) -> None:
        """Compare with the run that is already here, if any; nothing is written.

        Raises ValueError listing the flags that differ (except `MAY_CHANGE`), or if the clips are not the same.
        """
        if self._config.exists():
            old = yaml.safe_load(self._config.read_text(encoding="utf-8"))
            differences = compare_configs(old, config)
            if differences:
                raise ValueError(
                    f"{self.path} holds a run with other settings: {'; '.join(differences)}. "
                    f"Give the same settings to continue it, or another --run_dir"
                )
        if self._clips.exists():
            before, now = read_manifest(str(self._clips)), clips
            same = (map(eq, column_of(before, name), column_of(now, name)) for name in ("id", "label"))
            if len(before) != len(now) or not all(chain.from_iterable(same)):
                gone, new = (
                    sorted({*column_of(a, "id")} - {*column_of(b, "id")})[:3] for a, b in ((before, now), (now, before))
                )
                raise ValueError(
                    f"{self.path} holds a run on {len(before)} clips, now there are {len(now)} (gone: {gone}, "
                    f"new: {new}, or the order or a label differs): use the same clips to continue it, or another "
                    f"--run_dir"
                )

    def write_clips(self, clips: Sequence[Clip]) -> None:
        """Write clips.csv anew."""
        write_manifest(str(self._clips), clips)

    def write_start(self, config: dict[str, Any], clips: Sequence[Clip], step: int, num_processes: int) -> None:
        """Write configuration and clips (those of `check_files`), and add this start to environment.json."""
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        write_text(self._config, yaml.safe_dump(config, sort_keys=False))
        if not self._clips.exists():
            write_manifest(str(self._clips), clips)
        starts = json.loads(self._environment.read_text(encoding="utf-8")) if self._environment.exists() else []
        starts.append({"step": step, "num_processes": num_processes, **environment()})
        write_text(self._environment, json.dumps(starts, indent=2) + "\n")

    def write_figure(self, name: str, figure: Figure) -> Path:
        """Save a figure as `pictures/NAME.png`, whole or not at all."""
        path = self.pictures / f"{name}.png"
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")
        return path

    def last_metrics(self) -> dict[str, float]:
        """The newest row of metrics.csv, empty if there is none."""
        rows = CsvTable(self.metrics).rows()
        return {name: float(value) for name, value in rows[-1].items()} if rows else {}

    def read_config(self) -> dict[str, Any]:
        """The configuration of the run as a dictionary."""
        config = yaml.safe_load(self._config.read_text(encoding="utf-8"))
        assert isinstance(config, dict)
        return config

    @property
    def _config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def _clips(self) -> Path:
        return self.path / "clips.csv"

    @property
    def _environment(self) -> Path:
        return self.path / "environment.json"


class CsvTable:
    """A csv file that grows by rows with a `step` column and can be cut back to a step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, str]]:
        """All rows, as text."""
        if not self.path.exists():
            return []
        with open(self.path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows; the first ever decides the columns.

        Columns that came later, such as those a newer version measures, are put behind them and are empty in earlier
        rows. Raises ValueError on rows of a call that differ in their columns.
        """
        if not rows:
            return
        columns = list(rows[0])
        exists = self.path.exists()
        if exists:
            with open(self.path, newline="", encoding="utf-8") as file:
                known = next(csv.reader(file))
            columns = [*known, *(name for name in columns if name not in known)]
            if len(columns) > len(known):
                self._write(self.rows(), columns)
        before = self.path.stat().st_size if exists else 0
        try:
            with (
                writing(self.path),
                open(self.path, "a", newline="", encoding="utf-8", errors="backslashreplace") as file,
            ):
                writer = csv.DictWriter(file, columns, lineterminator="\n")
                if not exists:
                    writer.writeheader()
                writer.writerows(rows)
        except NotWrittenError:
            with suppress(OSError):  # no part of a row stays
                os.truncate(self.path, before) if before else self.path.unlink()
            raise

    def cut(self, step: int) -> None:
        """Drop the rows of steps after `step`: those a continued run computes again."""
        rows = self.rows()
        kept = [row for row in rows if None not in row.values() and int(row["step"]) <= step]
        if len(kept) < len(rows):
            self._write(kept, list(rows[0]))

    def _write(self, rows: Sequence[dict[str, Any]], columns: list[str]) -> None:
        """Replace the file."""
        with replacing(self.path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def compare_configs(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The settings in which two configurations differ beyond `MAY_CHANGE`, as `--flag was A, is B`."""
    a, b = flatten(in_todays_words(old)), flatten(new)
    a |= {key: value for key, value in CAME_LATER.items() if key in b and key not in a}
    return [
        f"--{key} was {a.get(key, 'absent')}, is {b.get(key, 'absent')}"
        for key in dict.fromkeys([*a, *b])
        if a.get(key, "absent") != b.get(key, "absent") and key not in MAY_CHANGE
    ]


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries to one, keys joined by dots as on the command line."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


@functools.cache
def installed() -> dict[str, str]:
    """Versions of what is installed, by package; read once, for it takes as long as a small run's step."""
    found = importlib.metadata.distributions()
    return {d.metadata["Name"].lower(): d.version for d in found if d.metadata["Name"]}


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    versions = installed()
    return {
        "deepavfusion": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: versions[name] for name in _PACKAGES if name in versions},
        "torch_threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "cuda_device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
