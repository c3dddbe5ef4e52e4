"""`evaluate localization`: score where a model sees the sound come from, in one process or under torchrun."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as Grid

from deepavfusion.configuration import TrainingConfig
from deepavfusion.data.sets.pairs import read_sounding_pairs
from deepavfusion.data.sounding_truth import read_box_annotations
from deepavfusion.evaluation.config import named_places
from deepavfusion.evaluation.coverage import ClipSelection, Coverage, coverage, select_clips
from deepavfusion.evaluation.localization.config import EvaluateLocalizationConfig
from deepavfusion.evaluation.localization.evaluator import RULES, SOUNDS_HEARD, LocalizationEvaluator
from deepavfusion.evaluation.localization.items import (
    Item,
    annotated_items,
    boxed_items,
    paired_items,
    with_foreign_sounds,
)
from deepavfusion.evaluation.localization.overlay_video import write_overlay
from deepavfusion.evaluation.localization.pictures import write_pictures
from deepavfusion.evaluation.localization.scores import CONDITIONS, Table, against, as_scores, score_table
from deepavfusion.evaluation.localization.sound_mapper import SoundMapper, load_mapper
from deepavfusion.evaluation.loop import Predictions, Progress, predict_all
from deepavfusion.evaluation.record import RESULTS, Baseline, PictureEntry, Record, Score, try_to_draw
from deepavfusion.metrics.localization import Binarisation
from deepavfusion.training.processes import Processes, autocast_dtype


@dataclass(frozen=True)
class LocalizationResult:
    """Scores of a model over a selection of items."""

    out: Path
    """Folder of the files."""
    protocol: str
    headline: Binarisation
    scores: dict[str, Score]
    """By name; empty where there is no truth."""
    baselines: dict[str, dict[str, Baseline]]
    coverage: Coverage
    videos: tuple[Path, ...]
    unreadable: dict[str, str]
    """Clips of which no video could be made, with the cause."""
    num_without_numbers: int = 0
    """Items for which the model's answer is not finite."""


@dataclass(frozen=True)
class Selection:
    """The items to be scored and what the official list is."""

    items: list[Item]
    clips: ClipSelection
    failed: dict[str, str]
    """Clips without usable annotation, with the cause."""
    empty: list[str]
    """Clips whose boxes cover no pixel."""


def evaluate_localization(
    config: EvaluateLocalizationConfig, progress: Progress | None = None
) -> LocalizationResult | None:
    """Score a localizer, or a bare encoder by a method without training.

    Args:
        config: which model on which clips.
        progress: is told how many items this process has done.

    Returns:
        The scores; None in every process but the first, which writes the files.

    Raises:
        ValueError: no such model, clips or boxes, or not one clip can be scored.
    """
    processes = Processes(TrainingConfig(device=config.device))
    result = _evaluate(config, processes, progress)
    processes.close()
    return result


def _evaluate(
    config: EvaluateLocalizationConfig, processes: Processes, progress: Progress | None
) -> LocalizationResult | None:
    mapper = _mapper(config, config.run, processes.device)
    selection = select_items(config)
    others = {name: _mapper(config, run, processes.device) for name, run in named_places(config.baselines).items()}

    def predict(own: SoundMapper) -> tuple[LocalizationEvaluator, Predictions]:
        evaluator = LocalizationEvaluator(own, selection.items, config.upsampling, config.seed)
        found = predict_all(evaluator, processes, config.batch_size, config.data.num_workers, progress)
        found.check_some(config.data.source)
        return evaluator, found

    evaluator, found = predict(mapper)
    rivals = {name: predict(own)[1] for name, own in others.items()}
    if not processes.first:
        return None
    out = _folder(config, selection, mapper)
    covered = coverage(selection.clips, found.ids, {**selection.failed, **found.failed})
    headline: Binarisation = "area" if config.boxes is None else "top50"

    def draw() -> tuple[Sequence[PictureEntry], tuple[Path, ...], dict[str, str]]:
        failed: dict[str, str] = {}
        write = partial(write_pictures, out, evaluator.items, found, mapper, headline)
        pictures = try_to_draw("pictures", write, failed)
        videos = _videos(config, out, evaluator.items, mapper, processes.device, failed)
        return pictures or (), videos, failed

    result = LocalizationResult(
        out, protocol_name(config, mapper), headline, {}, {}, covered, (), {}, found.num_without_numbers
    )
    if config.truth:
        return _score(config, result, evaluator.items, found, rivals, selection, draw)
    _, videos, unreadable = draw()
    return replace(result, videos=videos, unreadable=unreadable)


def _score(
    config: EvaluateLocalizationConfig,
    result: LocalizationResult,
    items: Sequence[Item],
    found: Predictions,
    rivals: dict[str, Predictions],
    selection: Selection,
    draw: Callable[[], tuple[Sequence[PictureEntry], tuple[Path, ...], dict[str, str]]],
) -> LocalizationResult:
    scenes = [items[i].scene for i in found.positions]
    table = score_table(found.values, scenes, result.headline)
    tables = {
        name: score_table(found.values, scenes, result.headline, condition) for name, condition in CONDITIONS.items()
    }
    for name, other in rivals.items():
        tables[name] = _aligned(
            score_table(other.values, [items[i].scene for i in other.positions], result.headline), other, found
        )
    sounding = ~np.isnan(np.asarray(found.values["ciou_area_own"], np.float64))
    if not sounding.any():
        raise ValueError(f"{config.data.source}: nothing sounds in the picture of any of {len(found.ids)} clips")
    result = replace(
        result, scores=as_scores(table), baselines={name: against(table, own) for name, own in tables.items()}
    )
    still = {"nothing in the picture sounds (in the extended scores alone)": int((~sounding).sum())}
    left_out = {**still, "boxes cover no pixel": len(selection.empty)}
    wrong = int((~np.asarray(found.values["finite_own"], bool) & sounding).sum())
    record = Record(
        title="Visual sound localization",
        task="localization",
        protocol=result.protocol,
        coverage=result.coverage,
        num_scored=int(sounding.sum()),
        scores=result.scores,
        left_out={cause: count for cause, count in left_out.items() if count},
        counted_as_wrong={"map not finite": wrong} if wrong else {},
        baselines=result.baselines,
        details={
            "settings": asdict(config),
            "headline": result.headline,
            "scenes": {kind: scenes.count(kind) for kind in sorted(set(scenes))},
            "lower_is_better": [name for name in result.scores if name.startswith("false positives")],
            "without_truth": selection.empty,
            "without_foreign_sound": int(np.isnan(found.values["confidence_foreign"]).sum()),
        },
    )
    confidences = {
        "confidence" if name == "own" else f"confidence {name}": np.asarray(
            found.values[f"confidence_{name}"], np.float64
        )
        for name in SOUNDS_HEARD
    }
    samples = {**table.samples, **confidences}
    record.write(result.out, found.ids, samples)
    pictures, videos, unreadable = draw()
    told = {**record.details, "videos": [path.name for path in videos], "videos_failed": unreadable}
    replace(record, pictures=pictures, details=told).write(result.out, found.ids, samples)
    return replace(result, videos=videos, unreadable=unreadable)


def select_items(config: EvaluateLocalizationConfig) -> Selection:
    """The items of the clips and boxes that a configuration names.

    Raises:
        ValueError: there is nothing to score.
    """
    chosen = select_clips(config.data.source, config.data.split, needs_label=False)
    if not config.truth:
        items = [Item(clip.id, clip, clip, "clips", frozenset()) for clip in chosen.clips]
        return Selection(with_foreign_sounds(items, config.seed), chosen, {}, [])
    if config.boxes is None:
        items, failed = annotated_items(chosen.clips)
        if not items:
            name, cause = next(iter(failed.items()))
            raise ValueError(f"{name}: {cause}; give --boxes, or --truth false for pictures and videos alone")
        return Selection(with_foreign_sounds(items, config.seed), chosen, failed, [])
    boxes = read_box_annotations(config.boxes, config.boxes_format, config.boxes_folder)
    items, empty = boxed_items(chosen.clips, boxes)
    if not items:
        raise ValueError(f"{config.boxes}: none of its {len(boxes)} clips is in {config.data.source}")
    there = {clip.id for clip in chosen.clips}
    missing, official = [name for name in boxes if name not in there], list(boxes)
    if config.pairs is not None:
        pairs = [pair for pair in read_sounding_pairs(config.pairs) if not pair.sounding]
        found, lacking = paired_items(chosen.clips, pairs)
        items, missing = items + found, missing + lacking
        official += [f"{pair.image_id}+{pair.audio_id}" for pair in pairs]
    selected = replace(
        chosen,
        official=tuple(official),
        missing=tuple(name for name in missing if name not in chosen.quarantined),
        quarantined={name: cause for name, cause in chosen.quarantined.items() if name in boxes},
    )
    return Selection(with_foreign_sounds(items, config.seed), selected, {}, empty)


def protocol_name(config: EvaluateLocalizationConfig, mapper: SoundMapper) -> str:
    """Everything about maps and truth that could be done otherwise."""
    truth = "sounding masks" if config.boxes is None else f"boxes ({config.boxes_format})"
    parts = [mapper.name, "whole picture, centre window", f"{config.upsampling} to 224 x 224"]
    parts += [f"{config.shifts} x {config.shifts} shifts"] if config.shifts > 1 else []
    parts += [truth if config.truth else "without truth"]
    parts += ["with non-sounding pairs"] if config.pairs else []
    return ", ".join(parts)


def show(result: LocalizationResult, console: Console | None = None) -> None:
    """Print the coverage line and a table of the scores beside the baselines'."""
    console = console or Console(markup=False, emoji=False)
    line = result.coverage.line()
    console.print(line if result.scores else line.replace("scored", "looked at", 1), soft_wrap=True)
    if result.scores:
        grid = Grid(title=f"{result.protocol} ({result.out})", title_justify="left")
        grid.add_column("score", no_wrap=True)
        for column in ("model", *result.baselines):
            grid.add_column(column, justify="right")
        other = tuple(f" {rule}" for rule in RULES if rule != result.headline)
        shown = {name: score for name, score in result.scores.items() if not name.endswith(other)}
        for name, score in shown.items():
            cells = [own[name].score.value if name in own else None for own in result.baselines.values()]
            grid.add_row(name, *("" if value is None else f"{100 * value:.1f}" for value in (score.value, *cells)))
        console.print(grid)
        if len(shown) < len(result.scores):
            console.print(f"{len(result.scores) - len(shown)} more under{' and'.join(other)}: {result.out / RESULTS}")
    else:
        console.print(f"without truth nothing is scored; pictures are in {result.out}", soft_wrap=True)
    for path in result.videos:
        console.print(f"video: {path}", soft_wrap=True)
    for name, cause in result.unreadable.items():
        console.print(f"no video of {name}: {cause}", soft_wrap=True, markup=False)


def _mapper(config: EvaluateLocalizationConfig, run: str, device: torch.device) -> SoundMapper:
    mine = run == config.run
    return load_mapper(
        run,
        config.method if mine or config.method != "head" else "auto",
        config.layers if mine else (),
        device=device,
        untrained=config.untrained and mine,
        shifts=config.shifts,
        dtype=autocast_dtype(config.precision, device.type),
        seed=config.seed,
    )


def _aligned(table: Table, own: Predictions, reference: Predictions) -> Table:
    """A table's rows in the order of other predictions; NaN for samples that it lacks."""
    places = {name: place for place, name in enumerate(own.ids)}
    chosen = np.array([places.get(name, -1) for name in reference.ids])

    def row(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(chosen >= 0, values[np.maximum(chosen, 0)], np.nan)

    return Table({name: row(values) for name, values in table.samples.items()}, table.pooled)


def _videos(
    config: EvaluateLocalizationConfig,
    out: Path,
    items: Sequence[Item],
    mapper: SoundMapper,
    device: torch.device,
    failed: dict[str, str],
) -> tuple[Path, ...]:
    """Overlay videos of clips spread over the list; those of which none could be made go into `failed`."""
    written = []
    clips = list({item.picture.id: item.picture for item in items}.values())
    count = min(config.overlay, len(clips))
    for clip in (clips[i * len(clips) // count] for i in range(count)):
        path = out / "videos" / f"{clip.id.replace('/', '_')}.mp4"
        try_to_draw(clip.id, partial(write_overlay, mapper, clip, path, device), failed)
        written += [path] if clip.id not in failed else []
    return tuple(written)


def _folder(config: EvaluateLocalizationConfig, selection: Selection, mapper: SoundMapper) -> Path:
    if config.out is not None:
        return Path(config.out)
    method = mapper.name.removesuffix(", untrained").replace(" of layers ", "-").replace(" of layer ", "-")
    method = method.replace(", ", "_")
    name = ["localization", Path(config.data.source.rstrip("/")).stem, selection.clips.split, method]
    name += ["untrained"] if config.untrained else []
    name += [config.boxes_format] if config.boxes else []
    name += [f"{config.shifts}shifts"] if config.shifts > 1 else []
    return Path(config.run) / "evaluation" / "-".join(name)
