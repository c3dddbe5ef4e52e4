"""Evaluation of separation on mixtures whose sources are known.

results.json   SDR, SIR, SAR and SI-SDR, and their improvements over the mixture; baselines with paired differences
samples.npz    the same per mixture
NAME/*.wav     of some mixtures: mixture, estimates, references and residual
NAME.png       their spectrograms
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepavfusion.data.mixtures import Mixture
from deepavfusion.drawing.separation import improvement_figure
from deepavfusion.evaluation.frame import Draw, Findings, Printed, TaskEvaluation, picture_drawing
from deepavfusion.evaluation.loop import Exchange, Predictions, Progress
from deepavfusion.evaluation.record import Baseline, PictureEntry, Record, mean_baseline, mean_score
from deepavfusion.evaluation.separation.config import EvaluateSeparationConfig
from deepavfusion.evaluation.separation.evaluator import MODEL, RATIOS, SeparationEvaluator, mixture_scores
from deepavfusion.evaluation.separation.examples import example_drawings
from deepavfusion.evaluation.separation.plan import plan_mixtures, protocol_name
from deepavfusion.metrics.separation import separation_scores
from deepavfusion.models.separator import Separator
from deepavfusion.storage.trained_models import open_models

TITLES = {"sdr": "SDR", "sir": "SIR", "sar": "SAR", "si_sdr": "SI-SDR"}
"""Names of the ratios in tables."""
KINDS = {"different classes": False, "same class": True}
CLEAN, WITHIN = "clean source lost dB", "clean sources within 1 dB"


class SeparationEvaluation(TaskEvaluation[EvaluateSeparationConfig]):
    """A separator on a list of mixtures, beside others and what needs no model."""

    def __init__(self, config: EvaluateSeparationConfig, exchange: Exchange, progress: Progress | None = None) -> None:
        super().__init__(config, exchange, progress)
        model, *others = (self._load(run) for run in (config.run, *config.places.values()))
        self.plan = plan_mixtures(config)
        rivals = dict(zip(config.places, others, strict=True))
        self.evaluator = SeparationEvaluator(
            model, self.plan.mixtures, rivals, config.protocol, config.clean, dtype=self.dtype
        )

    def _load(self, place: str) -> Separator:
        model = open_models(place).load("separation").to(self.device)
        assert isinstance(model, Separator)
        return model

    def predict(self) -> None:
        self.found = self.ask(self.evaluator)

    def findings(self) -> Findings:
        config, plan, found = self.config, self.plan, self.found
        silent = found.values["reference_silent"] if found.ids else np.array([True])
        if silent.all():
            reasons = [*found.failed.values(), "silent references"]
            raise ValueError(f"{config.data.source}: none of {len(plan.official)} mixtures can be scored: {reasons[0]}")
        scores = separation_scores(mixture_scores({name: torch.from_numpy(v) for name, v in found.values.items()}))
        scored = [name for name, without in zip(found.ids, silent, strict=True) if not without]
        unheard = {name: "silent reference" for name, without in zip(found.ids, silent, strict=True) if without}
        samples = sample_values(found, [plan.mixtures[i] for i in found.positions])
        own = {name: values for name, values in samples.items() if "/" not in name}
        systems = dict.fromkeys(name.partition("/")[2] for name in samples if "/" in name)
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
        printed = tuple(name for name in own if name not in ("SIRi", "SARi"))
        return Findings(
            record,
            found.ids,
            own,
            Printed(printed, ("SDR",), percent=False),
            drawings={
                "improvement.png": _improvements(own),
                **example_drawings(self.evaluator, found, own["SDRi"], config.examples, self.device),
            },
            num_without_numbers=found.num_without_numbers,
        )

    def folder_name(self) -> list[str]:
        config = self.config
        name = ["separation", self.source_name, config.data.split]
        name += [Path(config.pairs).stem] if config.pairs is not None else []
        name += ["duets"] if config.mixtures == "duets" else []
        name += [f"{config.sources}sources"] if config.sources != 2 else []
        name += [config.protocol] if config.protocol != "standard" else []
        return name


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


def _improvements(samples: Mapping[str, NDArray[np.float64]]) -> Draw:
    values = {kind: samples[f"SDRi {kind}"] for kind in KINDS if f"SDRi {kind}" in samples}
    values = {kind: own[~np.isnan(own)] for kind, own in (values or {"all mixtures": samples["SDRi"]}).items()}
    values = {kind: own for kind, own in values.items() if len(own)}
    told = "; ".join(f"{kind}: mean {own.mean():+.1f} dB of {len(own)}" for kind, own in values.items())
    caption = "SDR improvement over the mixture, one dot per mixture, lines at the means."
    entry = PictureEntry("improvement.png", f"dots per mixture; {told}", caption)
    return picture_drawing(entry, partial(improvement_figure, values, "SDR improvement"))


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over sources that have a value, `(n, N)` to `(n,)`; NaN where none has."""
    there = ~np.isnan(values)
    total = np.where(there, values, 0.0).sum(axis=1)
    return np.where(there.any(axis=1), total / np.maximum(there.sum(axis=1), 1), np.nan)
