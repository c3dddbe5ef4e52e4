"""The report of a demo: what its folder holds, read part by part.

    RUN/world/          a Bandstand world: manifest.csv, clips, classes.png
    RUN/pretrain/       the run folder of a pre-training
    RUN/NAME/           an evaluation, such as probe_linear: results.json (see `results`)
    RUN/timings.json    stages, seconds and commands (see `results`)

Every number on the page comes from these files. A part that is not there is said to be missing; a file that is there
and makes no sense is an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from deepavfusion.atomic import write_text
from deepavfusion.data.media import MediaFile
from deepavfusion.report.embedding import embed_clip, embed_picture
from deepavfusion.report.page import build_page
from deepavfusion.report.pretraining import pretraining_figures, pretraining_lead, pretraining_parts
from deepavfusion.report.results import Evaluation, read_evaluation, read_timings
from deepavfusion.report.scales import duration, score
from deepavfusion.report.sections import (
    ClipPlayer,
    ClipRow,
    CommandBlock,
    KeyFigure,
    Missing,
    Page,
    Part,
    PictureStrip,
    ScoreGroup,
    ScoreRow,
    ScoreTable,
    Section,
    Stage,
    Timing,
    tone_of,
)
from deepavfusion.report.world import world_parts


def write_report(run_dir: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write the report of a demo as one HTML file that needs nothing beside itself, whole or not at all.

    Args:
        run_dir: the demo's folder.
        out: the file to write, such as `runs/demo/report.html`.

    Returns:
        where it was written.

    Raises:
        ValueError: there is no such folder, or a file in it makes no sense; names the file.
    """
    run = Path(run_dir)
    if not run.is_dir():
        raise ValueError(f"{run} is not the folder of a run")
    write_text(out, build_page(demo_page(run)))
    return Path(out)


def demo_page(run: Path) -> Page:
    """The parts of the report."""
    timings = run / "timings.json"
    stages = read_timings(timings) if timings.is_file() else ()
    commands: dict[str, list[str]] = {}
    for stage in stages:
        if stage.command:
            commands.setdefault(_section_of(stage), []).append(stage.command)
    evaluations = {path.parent.name: read_evaluation(path) for path in sorted(run.glob("*/results.json"))}

    def section(name: str, title: str, lead: str, parts: list[Part]) -> Section:
        typed = [CommandBlock(command) for command in commands.get(name, ())]
        return Section(name, title, lead, (*typed, *parts))

    sections = [
        section(
            "world",
            "The world",
            "Generated clips of drawn instruments that play synthesised music, with exact ground truth.",
            world_parts(run / "world"),
        ),
        section(
            "pretrain",
            "Pre-training",
            pretraining_lead(run / "pretrain"),
            pretraining_parts(run / "pretrain"),
        ),
    ]
    for name, found in evaluations.items():
        lead = "The model and its baselines, on the same clips." if found.baselines else ""
        sections.append(section(name, found.title, lead, evaluation_parts(found)))
    if not evaluations:
        missing = Missing("No evaluation was run, so there are no scores.", "*/results.json")
        sections.append(Section("evaluation", "Evaluation", "", (missing,)))
    anchors = {part.anchor for part in sections}
    shown = tuple(
        Stage(stage.name, stage.seconds, stage.command, _section_of(stage) if _section_of(stage) in anchors else None)
        for stage in stages
    )
    timing: Part = Timing(shown) if shown else Missing("No times were recorded.", timings.name)
    sections.append(Section("timings", "Time taken", "Wall-clock time of each stage.", (timing,)))
    figures = [*pretraining_figures(run / "pretrain"), *evaluation_figures(evaluations.values())]
    if stages:
        together = duration(sum(stage.seconds for stage in stages))
        figures.append(KeyFigure("time, all stages", together, f"{len(stages)} stages"))
    lead = f"Everything on this page was read from the files in {run.resolve().name}."
    return Page("DeepAVFusion demo", lead, tuple(figures), tuple(sections))


def _section_of(stage: Stage) -> str:
    """Which section a stage belongs to: `localization: train` and `localization: score` to `localization`."""
    return stage.name.split(":")[0]


def evaluation_parts(found: Evaluation) -> list[Part]:
    """The score table of an evaluation and its pictures."""
    groups = []
    for name, estimate in found.scores.items():
        rows = [ScoreRow("this model", estimate, is_baseline=False)]
        rows += [
            ScoreRow(baseline, scores[name].score, scores[name].difference)
            for baseline, scores in found.baselines.items()
            if name in scores
        ]
        groups.append(ScoreGroup(name, tuple(rows), tone_of(name)))
    parts: list[Part] = [
        ScoreTable(
            found.protocol, found.num_scored, tuple(groups), found.confidence, found.left_out, found.counted_as_wrong
        )
    ]
    if not found.baselines:
        parts.append(Missing("There is no baseline to compare with.", "results.json, baselines"))
    for picture in found.pictures:
        embedded = embed_picture(picture.path, picture.alt, picture.caption)
        parts.append(PictureStrip(picture.path.stem.replace("_", " "), (embedded,)))
    parts += [_players(example, files) for example, files in found.sounds.items()]
    return parts


def _players(example: str, files: Mapping[str, Path]) -> ClipRow:
    """The sounds of one example side by side."""
    clips = []
    for what, path in files.items():
        with MediaFile(path) as media:
            seconds = media.info.duration_seconds
        clips.append(ClipPlayer(what, f"{what} of {example}", embed_clip(path), seconds, kind="audio"))
    return ClipRow(tuple(clips), note=f"Sounds of {example}.")


def evaluation_figures(evaluations: Iterable[Evaluation]) -> list[KeyFigure]:
    """The first score of each evaluation beside the baselines' for the head of the page."""
    figures = []
    for found in evaluations:
        name, estimate = next(iter(found.scores.items()))
        beside = [
            f"{baseline} {score(scores[name].score.value)}"
            for baseline, scores in found.baselines.items()
            if name in scores
        ]
        figures.append(KeyFigure(f"{found.title}, {name}", score(estimate.value), ", ".join(beside)))
    return figures
