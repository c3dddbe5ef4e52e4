"""What an encoder knows by itself, without a head that joins the senses: linear probes of its mean tokens.

Every task's head reads image and sound by cross-attention, so that it hides what the encoder joined and what it did
not. A linear classifier on standardised mean tokens cannot join anything. Of early fusion it reads the fusion tokens
alone, or all streams side by side; of two separate encoders the streams of both, side by side. What is asked:

    solos      look and timbre of a clip of one instrument, 24 classes
    twins      which of two instruments of one look plays, left or right: their sizes and the pitch tell
    digits     where the spoken digit stands: left, right, or nowhere
    matching   whether image and sound are of one solo, or of two whose instruments differ in size, and so in pitch

By position averaged, and linearly, two separate encoders are at chance in twins, digits and matching by construction.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepavfusion.atomic import write_text
from deepavfusion.audio import log_mel
from deepavfusion.data.clips import find_clips
from deepavfusion.data.dataset import ClipSet, collate
from deepavfusion.data.features import STREAMS, read_features
from deepavfusion.data.scenes.annotation import read_annotation
from deepavfusion.data.views import CentreView
from deepavfusion.images import normalize
from deepavfusion.metrics.intervals import paired_interval
from deepavfusion.models import EarlyFusionEncoder
from deepavfusion.storage.starting_point import model_folder
from experiments.encoders import KINDS, SEEDS, Encoders
from experiments.linear_probe import right
from experiments.paired import with_kept
from experiments.steps import AnyStep, Making
from experiments.worlds import FEW, Worlds

SETS = {
    "solos": ("band_solos", "train", "test"),
    "twins": ("band_scenes", "twins_train", "twins_test"),
    "digits": ("digits_scenes", "train", "test"),
}
"""By name: the world, the split that probes learn from, the split of the test."""
OBJECTIVES = {
    "reconstruction": ("early", "separate"),
    "alignment": ("aligned", "aligned_separate"),
    "alignment, convolutional": ("convolved", "convolved_separate"),
    "the same, often one sense alone": ("alone", "convolved_separate"),
    "the same, from two separate encoders": ("fused", "longer_separate"),
    "the same, all three casts, dense": ("stage_fused", "stage_longer"),
}
"""By objective: the encoder with early fusion, and the two separate ones."""
FORMS = {"factorized": "fused", **{form: f"fused_{form}" for form in ("token", "dense", "bilinear")}}
"""By form of fusion, encoders that started from the same two separate ones."""
FEW_SOLOS = f"solos, {FEW} labels"
UNPAIRED = "token"
"""The form whose fusion tokens read every local token by itself."""
PAIRED = ("dense", "bilinear")
"""Forms of all pairs."""
ASKED = (*SETS, FEW_SOLOS, "matching")
"""What is asked, in the order of the tables."""
READ = {"fusion": ("fusion",), "all": STREAMS}
"""What a probe reads, where it is there: side by side."""
BATCH = 32


@dataclass(frozen=True)
class Senses:
    """Where the features and the numbers lie."""

    root: Path
    worlds: Worlds
    encoders: Encoders

    def numbers(self, name: str, kind: str, seed: int) -> Path:
        return self.root / f"{name.replace(', ', '_').replace(' ', '_')}-{kind}-{seed}.json"

    @property
    def sets(self) -> dict[str, tuple[str, str, str]]:
        """The sets there are."""
        return {name: own for name, own in SETS.items() if self.worlds.digits or not own[0].startswith("digits")}

    def steps(self, seed: int) -> list[AnyStep]:
        steps: list[AnyStep] = []
        kinds = dict.fromkeys([kind for pair in OBJECTIVES.values() for kind in pair] + list(FORMS.values()))
        for kind in (kind for kind in kinds if seed in KINDS[kind].seeds and self.encoders.can_be(kind)):
            encoder, model = self.encoders.start(kind, seed)
            for name, (world, train, test) in self.sets.items():
                parts = (train, test)
                files = [self.root / "features" / f"{part}-{world}-{kind}-{seed}.npz" for part in parts]
                for file, part in zip(files, parts, strict=True):
                    steps.append(self.encoders.embedding(kind, seed, self.worlds.shards(world, part), file))
                labels = {name: None, FEW_SOLOS: FEW} if name == "solos" else {name: None}
                for told, count in labels.items():
                    out = self.numbers(told, kind, seed)
                    steps.append(Making(partial(probe, files[0], files[1], out, count), out, tuple(files)))
            solos, out = self.worlds.root / "band_solos", self.numbers("matching", kind, seed)
            needs = (model, self.worlds.made(self.worlds.shards("band_solos", "test")))
            steps.append(Making(partial(match, encoder, solos, out), out, needs))
        return steps

    def summarize(self, out: Path) -> None:
        """Write means over seeds, and early fusion minus separate encoders, paired by clip.

        What every probe told of every clip is kept in a folder beside the result file, so that seeds that are run later
        or elsewhere add to those there are. Rows of what is neither here nor kept stay as they are.
        """
        rows: list[dict[str, Any]] = []
        self._keep(out.with_suffix(""))
        for name in ASKED:
            for objective, (early, separate) in OBJECTIVES.items():
                ours, theirs = (self._found(name, kind, out.with_suffix("")) for kind in (early, separate))
                for what in READ:
                    if what not in next(iter(ours.values()), {}):
                        continue
                    seeds = {seed: own[what] for seed, own in ours.items()}
                    row = {"set": name, "objective": objective, "arm": f"early, {what}", **_score(seeds)}
                    if both := sorted(set(seeds) & set(theirs)):
                        row["minus_separate"] = _gap(seeds, _of(theirs, "all"), both)
                    rows.append(row)
                if theirs:
                    row = {"set": name, "objective": objective, "arm": "separate", **_score(_of(theirs, "all"))}
                    rows.append(row)
        rows = with_kept(rows, out, ("set", "objective"))
        rows.sort(key=lambda row: (ASKED.index(row["set"]), list(OBJECTIVES).index(row["objective"])))
        if rows:
            write_text(out, json.dumps({"rows": rows}, indent=1) + "\n")

        forms = self._forms(out.with_suffix(""))
        if forms:
            write_text(out.with_name("senses_forms.json"), json.dumps({"rows": forms}, indent=1) + "\n")

    def _forms(self, folder: Path) -> list[dict[str, Any]]:
        """Each form of fusion, the first of them minus it, and it minus the form without pairs."""
        rows = []
        for name in ASKED:
            found = {form: self._found(name, kind, folder) for form, kind in FORMS.items()}
            first = next(iter(found.values()))
            for (form, seeds), what in product(found.items(), READ if first else ()):
                both = sorted(set(seeds) & set(first))
                if not both:
                    continue
                told = _of(seeds, what)
                row = {"set": name, "read": what, "form": form, **_score({seed: told[seed] for seed in both})}
                if seeds is not first:
                    row["first_minus_form"] = _gap(_of(first, what), told, both)
                if form in PAIRED and (both := sorted(set(seeds) & set(found[UNPAIRED]))):
                    row["form_minus_token"] = {**_gap(told, _of(found[UNPAIRED], what), both), "seeds": len(both)}
                rows.append(row)
        return rows

    def _keep(self, folder: Path) -> None:
        """Copy what is told, a digit per clip, to a folder that is committed."""
        for file in sorted(self.root.glob("*.json")):
            told = json.loads(file.read_text(encoding="utf-8"))
            folder.mkdir(parents=True, exist_ok=True)
            digits = {what: "".join(map(str, own)) for what, own in told.items()}
            write_text(folder / file.name, json.dumps(digits, indent=1) + "\n")

    def _found(self, name: str, kind: str, folder: Path) -> dict[int, dict[str, list[int]]]:
        """By seed, what each probe told, clip by clip."""
        files = {seed: folder / self.numbers(name, kind, seed).name for seed in SEEDS}
        return {
            seed: {what: [*map(int, own)] for what, own in json.loads(file.read_text(encoding="utf-8")).items()}
            for seed, file in files.items()
            if file.is_file()
        }


def _of(found: dict[int, dict[str, list[int]]], what: str) -> dict[int, list[int]]:
    return {seed: own[what] for seed, own in found.items()}


def _gap(ours: dict[int, list[int]], theirs: dict[int, list[int]], seeds: list[int]) -> dict[str, float]:
    """The first minus the second, paired by clip, over some seeds."""
    gap = paired_interval(*(np.array([own[seed] for seed in seeds]) for own in (ours, theirs)))
    return {"value": gap.difference, "low": gap.low, "high": gap.high}


def _score(seeds: dict[int, list[int]]) -> dict[str, object]:
    each = [float(np.mean(own)) for own in seeds.values()]
    return {"value": float(np.mean(each)), "seeds": each, "num": len(next(iter(seeds.values())))}


def probe(train: Path, test: Path, out: Path, count: int | None = None) -> None:
    """Write which test clips' labels are told from pooled features; `count` leaves only the first to learn from."""
    known, asked = read_features(str(train)), read_features(str(test))
    names = sorted({str(label) for label in known.labels})
    classes, truth = (torch.tensor([names.index(str(label)) for label in own.labels]) for own in (known, asked))
    a, b = ({name: torch.from_numpy(x).float() for name, x in own.streams.items()} for own in (known, asked))
    few = slice(count)  # classes alternate, so the first are balanced
    _write({name: x[few] for name, x in a.items()}, classes[few], b, truth, out)


def match(place: str, solos: Path, out: Path) -> None:
    """Write of which pairs of image and sound a probe tells that they belong together, or do not."""
    encoder = EarlyFusionEncoder.from_pretrained(model_folder(place)).eval()
    (a, classes), (b, truth) = (pairs(encoder, solos, split) for split in ("train", "test"))
    _write(a, classes, b, truth, out)


def pairs(encoder: EarlyFusionEncoder, world: Path, split: str) -> tuple[dict[str, Tensor], Tensor]:
    """Mean tokens by stream of every solo's image with its own and with a foreign sound; 1 for own, 0 for foreign."""
    clips = find_clips(str(world / f"{split}.csv"))
    samples = [ClipSet(clips, CentreView.from_config(encoder.config))[n] for n in range(len(clips))]
    batch = collate(samples)
    sources = (read_annotation(str(world / split / f"{clip.id}.mp4")).sources for clip in clips)
    sizes = np.array([next(source.size_pixels or 0.0 for source in own if source.visible) for own in sources])
    image, audio = normalize(batch.image), log_mel(batch.waveform, encoder.config.audio_size[0])
    found: dict[str, list[Tensor]] = {}
    for sounds in (np.arange(len(clips)), foreign(sizes)):
        for start, stop in pairwise([*range(0, len(clips), BATCH), len(clips)]):
            with torch.no_grad():
                tokens = encoder(image[start:stop], audio[torch.from_numpy(sounds[start:stop])])
            for name in STREAMS:
                found.setdefault(name, []).append(getattr(tokens, name).mean(dim=1))
    return {name: torch.cat(rows) for name, rows in found.items()}, torch.arange(2).flip(0).repeat_interleave(
        len(clips)
    )


def foreign(sizes: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each clip `(N,)` the one that is half of them further in the order of sizes, round the end.

    So every sound is foreign exactly once, and whatever is told of image and sound apart is as often own as foreign.
    """
    order = np.argsort(sizes, kind="stable")
    found = np.empty(len(sizes), np.int64)
    found[order] = np.roll(order, -(len(sizes) // 2))
    return found


def _write(a: dict[str, Tensor], classes: Tensor, b: dict[str, Tensor], truth: Tensor, out: Path) -> None:
    """Probe what is read, and write what was told."""
    told = {}
    for what, streams in READ.items():
        there = [name for name in streams if name in a]
        if there:
            x, x_test = (torch.cat([own[name] for name in there], dim=1) for own in (a, b))
            told[what] = right(x, classes, x_test, truth).int().tolist()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps(told) + "\n")
