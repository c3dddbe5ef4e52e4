"""Fills a folder with clips of the world, in parallel; a run that was stopped continues."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

from deepavfusion.atomic import NotWrittenError, write_text
from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.digits import Digits
from deepavfusion.bandstand.readme import describe
from deepavfusion.bandstand.scenes import Band
from deepavfusion.bandstand.sheet import class_sheet, scene_sheet
from deepavfusion.bandstand.splits import Cast, shares
from deepavfusion.bandstand.stage import Stage
from deepavfusion.bandstand.stamp_scenes import Stamps
from deepavfusion.bandstand.world import WORLD_VERSION
from deepavfusion.bandstand.writer import Performance, clip_id, is_complete, perform, remove_partial, write_clip
from deepavfusion.data.clips import Clip, read_manifest, write_manifest
from deepavfusion.data.shard_writing import ShardConfig, write_shards

WORLD_FILE, MANIFEST, README = "world.json", "manifest.csv", "README.md"
_AT_ONCE = 8
"""Clips given to a worker at a time."""


@dataclass(frozen=True)
class BandstandSummary:
    """What a run did."""

    out: str
    manifest: str
    """Manifest of all clips in the folder; `SPLIT.csv` beside it holds one split."""
    counts: dict[str, int]
    """Clips per split that this run asked for."""
    written: int
    skipped: int
    """Clips that were there already."""
    seconds: float
    """Wall-clock time."""


def make_cast(config: BandstandConfig) -> Cast:
    """The cast that a configuration names. Raises ValueError if its files are missing or wrong."""
    if config.cast == "band":
        return Band()
    if config.cast == "stamps":
        assert config.stamps is not None  # the configuration has checked this
        return Stamps(config.stamps, config.backgrounds, config.held_out_languages)
    assert config.digit_images is not None
    assert config.digit_recordings is not None
    return Digits(config.digit_images, config.digit_recordings, config.held_out_speaker)


def make_clip(config: BandstandConfig, cast: Cast, split: str, index: int) -> Performance:
    """One clip in memory; depends only on seed, split, index, the settings of the stage and the world's version.

    Args:
        config: the settings; `out`, `clips`, `splits` and `num_workers` do not matter.
        cast: of `make_cast`.
        split: one of the cast's splits.
        index: of the clip in its split, from 0.
    """
    stage = Stage(config.size, config.frame_rate, config.seconds, config.sample_rate)
    return perform(
        stage,
        cast.plan(config.seed, split, index, config.seconds),
        cast=cast.name,
        seed=config.seed,
        split=split,
        index=index,
        annotate_every=config.annotate_every,
        stems=config.stems,
        masks=config.masks,
        world=cast.splits[split].world,
    )


def generate(config: BandstandConfig, progress: Callable[[int, int], None] | None = None) -> BandstandSummary:
    """Write the clips, the manifests, a README and the contact sheets. One run at a time may fill a split's folder.

    Args:
        config: what to write where.
        progress: called in this process with clips done and clips in all, at the start and after each batch.

    Raises:
        ValueError: a split the cast does not have, wrong files of a cast, or a folder that holds another world.
        RuntimeError: a clip could not be made; names it. Clips finished before stay and are not made again.
    """
    began = time.monotonic()
    cast = make_cast(config)
    counts = shares(config.clips, cast.splits, config.splits)
    out = os.path.abspath(config.out)
    os.makedirs(out, exist_ok=True)
    _claim(out, config, cast)
    missing = []
    for split, count in counts.items():
        os.makedirs(os.path.join(out, split), exist_ok=True)
        remove_partial(os.path.join(out, split))
        names = (clip_id(split, index) for index in range(count))
        missing += [(split, i) for i, name in enumerate(names) if not is_complete(os.path.join(out, split), name)]
    total = sum(counts.values())
    done = total - len(missing)
    if progress:
        progress(done, total)
    for finished in _run(config, out, missing, cast):
        done += finished
        if progress:
            progress(done, total)
    manifest = _write_manifests(out, config, cast, counts)
    classes, scenes = os.path.join(out, "classes.png"), os.path.join(out, "scenes.png")
    if config.sheets and not os.path.exists(classes):
        class_sheet(cast, classes)
    if config.sheets and not os.path.exists(scenes):
        scene_sheet(cast, config.seed, scenes)
    write_text(os.path.join(out, README), describe(cast, config))
    if config.shards:
        for split in counts:
            _store(out, split, config)
    return BandstandSummary(
        out, manifest, counts, len(missing), total - len(missing), round(time.monotonic() - began, 3)
    )


def _settings(config: BandstandConfig, cast: Cast) -> dict[str, Any]:
    """What two runs into one folder must agree on."""
    names = ("seed", "size", "frame_rate", "seconds", "sample_rate", "annotate_every", "stems", "masks")
    stage = {name: getattr(config, name) for name in names}
    return {"world": WORLD_VERSION, "cast": cast.name, **stage, **cast.settings}


def _claim(out: str, config: BandstandConfig, cast: Cast) -> None:
    path, settings = os.path.join(out, WORLD_FILE), _settings(config, cast)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            there = json.load(file)
        for name in {**there, **settings}:
            # Clips of an earlier version with the same first number are the same: the folder may be added to.
            same = there.get(name) == settings.get(name) or (name == "world" and _same_world(there.get(name)))
            if not same:
                raise ValueError(
                    f"{out}: holds clips with {name} {there.get(name)!r}, not {settings.get(name)!r}; "
                    f"choose another folder or the same {name}"
                )
    else:
        write_text(path, json.dumps(settings, indent=1) + "\n")


def _same_world(version: Any) -> bool:
    return str(version).split(".")[0] == WORLD_VERSION.split(".")[0]


def _run(config: BandstandConfig, out: str, clips: list[tuple[str, int]], cast: Cast) -> Iterator[int]:
    """Make the clips; yields how many were finished since the last time."""
    batches = [clips[start : start + _AT_ONCE] for start in range(0, len(clips), _AT_ONCE)]
    if config.num_workers == 0:
        for batch in batches:
            yield _make(config, out, batch, cast)
        return
    workers = min(config.num_workers, len(batches))
    if not workers:
        return
    # Fresh processes: a forked one may inherit locks of threads (torch, PyAV) that do not exist in it.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (config, out, cast)) as pool:
        waiting: set[Future[int]] = {pool.submit(_work, batch) for batch in batches}
        try:
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


_worker: tuple[BandstandConfig, str, Cast] | None = None
"""What a worker process works on, set once when it starts."""


def _start_worker(config: BandstandConfig, out: str, cast: Cast) -> None:
    global _worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = (config, out, cast)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(batch: list[tuple[str, int]]) -> int:
    assert _worker is not None
    config, out, cast = _worker
    return _make(config, out, batch, cast)


def _make(config: BandstandConfig, out: str, batch: list[tuple[str, int]], cast: Cast) -> int:
    for split, index in batch:
        try:
            write_clip(os.path.join(out, split), make_clip(config, cast, split, index))
        except NotWrittenError:  # no clip's fault
            raise
        except Exception as error:
            raise RuntimeError(f"clip {clip_id(split, index)}: {type(error).__name__}: {error}") from error
    return len(batch)


def _write_manifests(out: str, config: BandstandConfig, cast: Cast, counts: dict[str, int]) -> str:
    """One manifest per split, and one of all splits in the folder; a split keeps the clips of a larger, earlier run.

    A split whose clips have other labels too gets one manifest for each.
    """
    rows: list[Clip] = []
    for split in cast.splits:
        path = os.path.join(out, f"{split}.csv")
        clips = read_manifest(path) if os.path.exists(path) else []
        if len(clips) < counts.get(split, 0):
            plans = [cast.plan(config.seed, split, index, config.seconds) for index in range(counts[split])]
            clips = [_row(out, config, split, index, plan.label) for index, plan in enumerate(plans)]
            for fact in cast.splits[split].labels:
                labels = [(plan.facts or {})[fact] for plan in plans]
                other = [replace(clip, label=label) for clip, label in zip(clips, labels, strict=True)]
                write_manifest(os.path.join(out, f"{split}_{fact}.csv"), other)
            write_manifest(path, clips)  # last: a run that is stopped before writes the others again
        rows += clips
    manifest = os.path.join(out, MANIFEST)
    write_manifest(manifest, rows)
    return manifest


def _store(out: str, split: str, config: BandstandConfig) -> None:
    """Write one split as shards. Raises RuntimeError if a clip that was just written does not read."""
    summary = write_shards(
        ShardConfig(
            source=os.path.join(out, f"{split}.csv"),
            out=os.path.join(out, "shards", split),
            frames_per_second=config.shards,
            short_side=config.size,
            num_workers=config.num_workers,
        )
    )
    if summary.failures:
        raise RuntimeError(f"{split}: {summary.failures[0][0]} could not be stored: {summary.failures[0][1]}")


def _row(out: str, config: BandstandConfig, split: str, index: int, label: str | None) -> Clip:
    name = clip_id(split, index)
    path = os.path.join(out, split, name + ".mp4")
    return Clip(
        id=name,
        path=path,
        label=label,
        split=split,
        duration_seconds=config.seconds,
        num_bytes=os.path.getsize(path),
        width=config.size,
        height=config.size,
        frame_rate=config.frame_rate,
        sample_rate=config.sample_rate,
        channels=1,
    )
