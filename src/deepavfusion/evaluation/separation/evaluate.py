"""`evaluate` of separators: score mixtures whose sources are known, in one process or under torchrun.

results.json   SDR, SIR, SAR and SI-SDR, and their improvements over the mixture; baselines with paired differences
samples.npz    the same per mixture
NAME/*.wav     of some mixtures: mixture, estimates, references and what remains
NAME.png       their spectrograms
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from deepavfusion.atomic import replacing
from deepavfusion.configuration import TrainingConfig
from deepavfusion.data.mixtures import Mixture
from deepavfusion.drawing.separation import improvement_figure
from deepavfusion.evaluation.loop import Predictions, Progress, predict_all
from deepavfusion.evaluation.record import Baseline, PictureEntry, Record, mean_baseline, mean_score, try_to_draw
from deepavfusion.evaluation.separation.config import EvaluateSeparationConfig
from deepavfusion.evaluation.separation.evaluator import MODEL, RATIOS, SeparationEvaluator, mixture_scores
from deepavfusion.evaluation.separation.examples import write_examples
from deepavfusion.evaluation.separation.plan import MixturePlan, plan_mixtures, protocol_name
from deepavfusion.metrics.separation import SeparationScores, separation_scores
from deepavfusion.models.separator import Separator
from deepavfusion.storage.trained_models import open_models
from deepavfusion.training.processes import Processes, autocast_dtype

TITLES = {"sdr": "SDR", "sir": "SIR", "sar": "SAR", "si_sdr": "SI-SDR"}
"""Names of the ratios in tables."""
KINDS = {"different classes": False, "same class": True}
CLEAN, WITHIN = "clean source lost dB", "clean sources within 1 dB"


@dataclass(frozen=True)
class SeparationResult:
    """Scores of a separator over a list of mixtures."""

    out: Path
    """Folder of the files."""
    record: Record
    scores: SeparationScores
    """Of the model, with all counts."""
    num_without_numbers: int = 0
    """Mixtures for which the model's answer is not finite."""


def evaluate_separation(config: EvaluateSeparationConfig, progress: Progress | None = None) -> SeparationResult | None:
    """Score a separator.

    Args:
        config: which model on which mixtures.
        progress: is told how many mixtures this process has done.

    Returns:
        The scores; None in every process but the first, which writes the files.

    Raises:
        ValueError: no such model, clips or pairs, or baselines that do not fit.
    """
    processes = Processes(TrainingConfig(device=config.device))
    result = _evaluate(config, processes, progress)
    processes.close()
    return result


def _evaluate(
    config: EvaluateSeparationConfig, processes: Processes, progress: Progress | None
) -> SeparationResult | None:
    model, *others = (_load(run).to(processes.device) for run in (config.run, *config.baseline_runs.values()))
    plan = plan_mixtures(config)
    dtype = autocast_dtype(config.precision, processes.device.type)
    evaluator = SeparationEvaluator(
        model,
        plan.mixtures,
        dict(zip(config.baseline_runs, others, strict=True)),
        config.protocol,
        config.clean,
        dtype=dtype,
    )
    found = predict_all(evaluator, processes, config.batch_size, config.data.num_workers, progress)
    if not processes.first:
        return None
    if not found.ids or bool(found.values["reference_silent"].all()):
        reasons = [*found.failed.values(), "silent references"]
        raise ValueError(f"{config.data.source}: not one of {len(plan.official)} mixtures can be scored: {reasons[0]}")
    return _write(config, plan, found, evaluator, processes.device)


def _load(place: str) -> Separator:
    model = open_models(place).load("separation")
    assert isinstance(model, Separator)
    return model


def show(result: SeparationResult, console: Console | None = None) -> None:
    """Print the coverage line and a table with one row per system."""
    console, record = console or Console(markup=False, emoji=False), result.record
    console.print(record.coverage.line(), soft_wrap=True)
    columns = [name for title in TITLES.values() for name in (title, f"{title}i") if name in record.scores]
    columns = [name for name in columns if name not in ("SIRi", "SARi")]
    table = Table(title=f"{record.protocol} ({result.out})", title_justify="left")
    for column in ("system", *columns, "model - it (SDR)"):
        table.add_column(column, justify="left" if column == "system" else "right")
    table.add_row(MODEL, *(f"{record.scores[name].value:.2f}" for name in columns), "")
    for name, own in record.baselines.items():
        cells = [f"{own[column].score.value:.2f}" if column in own else "" for column in columns]
        gap = own["SDR"].difference if "SDR" in own else None
        table.add_row(name, *cells, "" if gap is None else f"{gap.difference:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]")
    console.print(table)
    for what, cause in record.details["drawings_failed"].items():
        console.print(f"no drawing of {what}: {cause}", soft_wrap=True, markup=False)
    for name, score in record.scores.items():
        if name not in (*columns, *(f"{title}i" for title in TITLES.values())):
            console.print(f"{name}: {score.value:.2f}")


def _write(
    config: EvaluateSeparationConfig,
    plan: MixturePlan,
    found: Predictions,
    evaluator: SeparationEvaluator,
    device: torch.device,
) -> SeparationResult:
    scores = separation_scores(mixture_scores({name: torch.from_numpy(v) for name, v in found.values.items()}))
    silent = found.values["reference_silent"]
    scored = [name for name, without in zip(found.ids, silent, strict=True) if not without]
    unheard = dict.fromkeys((n for n, without in zip(found.ids, silent, strict=True) if without), "silent reference")
    samples = sample_values(found, [plan.mixtures[i] for i in found.positions])
    own = {name: values for name, values in samples.items() if "/" not in name}
    systems = dict.fromkeys(name.partition("/")[2] for name in samples if "/" in name)
    folder = _folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(
        title="Source separation",
        task="separation",
        protocol=protocol_name(config, plan.recorded),
        coverage=plan.coverage(scored, {**found.failed, **unheard}),
        num_scored=scores.num_scored,
        scores={name: mean_score(values) for name, values in own.items()},
        left_out={**scores.left_out, **({"unreadable": len(found.failed)} if found.failed else {})},
        counted_as_wrong=dict(scores.counted_as_wrong),
        baselines={system: _baseline(samples, system) for system in systems},
        details={
            "predictions_without_sir_and_sar": scores.num_without_sir_sar,
            "predictions_at_100_db": scores.num_at_limit,
            "references_too_alike": scores.num_singular,
            "clips_in_no_mixture": plan.unusable,
            "settings": asdict(config),
        },
    )
    record.write(folder, found.ids, own)
    failed: dict[str, str] = {}
    improvements = try_to_draw("improvement.png", lambda: _improvements(own, folder), failed)
    examples = write_examples(evaluator, found, own["SDRi"], config.examples, folder, device, failed)
    pictures = [improvements] if improvements is not None else []
    sounds = {example.mixture: example.sounds for example in examples}
    record = replace(
        record,
        pictures=[*pictures, *(example.picture for example in examples)],
        details={**record.details, "sounds": sounds, "drawings_failed": failed},
    )
    record.write(folder, found.ids, own)
    return SeparationResult(folder, record, scores, found.num_without_numbers)


def sample_values(found: Predictions, mixtures: Sequence[Mixture]) -> dict[str, NDArray[np.float64]]:
    """One value per mixture, its sources' mean: of the model by score, of the others as `SCORE/SYSTEM`."""
    samples: dict[str, NDArray[np.float64]] = {}
    same = np.array([np.nan if m.same_class is None else float(m.same_class) for m in mixtures])
    for name in RATIOS:
        base = found.values[f"{name}/mixture"]
        for key in (key for key in found.values if key.startswith(f"{name}/")):
            system = key.partition("/")[2]
            suffix = "" if system == MODEL else f"/{system}"
            samples[f"{TITLES[name]}{suffix}"] = _mean(found.values[key])
            if system != "mixture":
                samples[f"{TITLES[name]}i{suffix}"] = _mean(found.values[key] - base)
    for kind, is_same in KINDS.items():
        if (same == is_same).any():
            for key in [key for key in samples if key.partition("/")[0] in ("SDR", "SDRi", "SI-SDRi")]:
                score, _, system = key.partition("/")
                kept = np.where(same == is_same, samples[key], np.nan)
                samples[f"{score} {kind}{'/' + system if system else ''}"] = kept
    if "attenuation" in found.values:
        lost = found.values["attenuation"]
        samples[CLEAN] = _mean(lost)
        samples[WITHIN] = _mean(np.where(np.isnan(lost), np.nan, (lost <= 1).astype(float)))
    return samples


def _baseline(samples: Mapping[str, NDArray[np.float64]], system: str) -> dict[str, Baseline]:
    suffix = f"/{system}"
    return {
        key.removesuffix(suffix): mean_baseline(samples[key.removesuffix(suffix)], values)
        for key, values in samples.items()
        if key.endswith(suffix)
    }


def _improvements(samples: Mapping[str, NDArray[np.float64]], folder: Path) -> PictureEntry:
    values = {kind: samples[f"SDRi {kind}"] for kind in KINDS if f"SDRi {kind}" in samples}
    values = {kind: own[~np.isnan(own)] for kind, own in (values or {"all mixtures": samples["SDRi"]}).items()}
    values = {kind: own for kind, own in values.items() if len(own)}
    with replacing(folder / "improvement.png") as temporary:
        improvement_figure(values, "SDR improvement").savefig(temporary, format="png")
    told = "; ".join(f"{kind}: mean {own.mean():+.1f} dB of {len(own)}" for kind, own in values.items())
    caption = "SDR improvement over the mixture, one dot per mixture, lines at the means."
    return PictureEntry("improvement.png", f"dots per mixture; {told}", caption)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over sources that have a value, `(n, N)` to `(n,)`; NaN where none has."""
    there = ~np.isnan(values)
    total = np.where(there, values, 0.0).sum(axis=1)
    return np.where(there.any(axis=1), total / np.maximum(there.sum(axis=1), 1), np.nan)


def _folder(config: EvaluateSeparationConfig) -> Path:
    if config.out is not None:
        return Path(config.out)
    name = ["separation", Path(config.data.source.rstrip("/")).stem, config.data.split]
    name += [Path(config.pairs).stem] if config.pairs is not None else []
    name += ["duets"] if config.mixtures == "duets" else []
    name += [f"{config.sources}sources"] if config.sources != 2 else []
    name += [config.protocol] if config.protocol != "standard" else []
    return Path(config.run) / "evaluation" / "-".join(name)
