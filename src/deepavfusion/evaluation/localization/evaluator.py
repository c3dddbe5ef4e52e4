"""Maps of a model for every sample, with its own sound and with other sounds, and their score for each sample.

Every image is given with its own sound, with digital silence (what the model finds by sight alone), with another clip's
sound, and with white noise at the level of the own sound. Two maps without a model are scored too: a centre prior and
the whole image.

Shape legend: `B` items, `K` classes, `R C` rows and columns of the map, `G` side of the scoring grid, 224.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from deepavfusion.audio import LOG_FLOOR, log_mel
from deepavfusion.data.dataset import Batch
from deepavfusion.data.loading import ClipLoader, evaluation_loader
from deepavfusion.data.randomness import Purpose, generator
from deepavfusion.data.scenes.sounding_masks import SOUNDS
from deepavfusion.data.sounding_truth import GRID
from deepavfusion.data.views import CentreView
from deepavfusion.evaluation.localization.items import Item, ItemSet
from deepavfusion.evaluation.localization.sound_mapper import SoundMapper
from deepavfusion.evaluation.loop import Outcome
from deepavfusion.images import normalize
from deepavfusion.metrics.localization import (
    Binarisation,
    Upsampling,
    pixel_average_precision,
    score_maps,
    upsample,
)
from deepavfusion.models.no_numbers import without_numbers

RULES: tuple[Binarisation, ...] = ("area", "fixed", "top50")
SOUNDS_HEARD = ("own", "silence", "foreign", "noise")
"""What is heard with each picture."""
PRIORS = ("centre", "whole")
"""Maps that no model made."""


class LocalizationEvaluator:
    """What the evaluation loop asks, for localization. Values by name, `(B, ...)`:

    `ciou_RULE_SOUND`, `confidence_SOUND`, `finite_SOUND` (SOUND also a prior), `chosen_SOUND` (whether the source with
    the highest mean score sounds; NaN where all or none do), `map` and `map_silence` `(B, R, C)`, `pixel_ap`,
    `class_ciou` `(B, K)` of a model with classes; NaN where there is nothing to score.
    """

    def __init__(
        self, mapper: SoundMapper, items: Sequence[Item], upsampling: Upsampling = "bilinear", seed: int = 0
    ) -> None:
        """
        Args:
            mapper: makes the maps.
            items: what to score.
            upsampling: how maps come to the scoring grid.
            seed: of the noise.
        """
        self.mapper, self.items, self.upsampling, self.seed = mapper, list(items), upsampling, seed
        self._places = {item.id: place for place, item in enumerate(self.items)}

    @property
    def ids(self) -> Sequence[str]:
        return [item.id for item in self.items]

    def loader(self, positions: Sequence[int], batch_size: int, num_workers: int, device: torch.device) -> ClipLoader:
        """Batches of the items' samples, two for each."""
        pairs = ItemSet([self.items[i] for i in positions], CentreView.from_config(self.mapper.encoder))
        return evaluation_loader(pairs, 2 * batch_size, num_workers, device)

    def predict(self, batch: Batch, device: torch.device) -> Outcome:
        """The values of the items whose samples these are."""
        items = [self.items[self._places[name]] for name in batch.ids[::2]]
        assert batch.truth is not None
        codes = batch.truth[::2]
        truth = torch.stack([truth_map(item, code) for item, code in zip(items, codes, strict=True)])
        has_sound, has_foreign = batch.audio_present[::2], batch.audio_present[1::2]
        failed = {i: "no sound" for i in range(len(items)) if not has_sound[i] and bool(truth[i].any())}
        causes = {failure.clip_id: failure.cause for failure in batch.failures}
        failed |= {i: causes[item.id] for i, item in enumerate(items) if item.id in causes}

        image = normalize(batch.image[::2].to(device))
        mels = self.mapper.encoder.audio_size[0]
        own = log_mel(batch.waveform[::2].to(device), mels)  # a lacking track is digital silence
        waves = {"foreign": batch.waveform[1::2], "noise": self._noise(items, batch.waveform[::2])}
        sounds = {"own": own, "silence": torch.full_like(own, float(np.log10(LOG_FLOOR)))}
        sounds |= {name: log_mel(wave.to(device), mels) for name, wave in waves.items()}
        maps = {name: self.mapper(image, sound).cpu() for name, sound in sounds.items()}
        maps["foreign"] = torch.where(has_foreign[:, None, None, None], maps["foreign"], torch.nan)

        single = {name: own_maps.amax(dim=1) for name, own_maps in maps.items()}  # what sounds, of whatever class
        rows, columns = single["own"].shape[1:]
        single |= {name: prior_map(name, rows, columns).expand(len(items), -1, -1) for name in PRIORS}
        values = {"map": single["own"], "map_silence": single["silence"]}
        for name, scores in single.items():
            values |= self._score(name, scores, truth, codes)
        lacking = ~has_foreign
        for name in values:
            if name.endswith("_foreign") and name != "finite_foreign":
                values[name] = torch.where(lacking, torch.nan, values[name])
        if self.mapper.classes:
            values |= self._per_class(maps["own"], items, codes)
        return Outcome(values, failed, without_numbers(maps["own"]) - failed.keys())

    def _score(self, name: str, maps: Tensor, truth: Tensor, codes: Tensor) -> dict[str, Tensor]:
        found = {rule: score_maps(maps, truth, rule, self.upsampling) for rule in RULES}
        values = {f"ciou_{rule}_{name}": scores.ciou for rule, scores in found.items()}
        values[f"confidence_{name}"] = found["area"].confidence
        values[f"finite_{name}"] = found["area"].finite
        usable = maps.masked_fill(~maps.isfinite(), 0)
        values[f"chosen_{name}"] = sources_chosen(upsample(usable, (GRID, GRID), self.upsampling), codes)
        return values

    def _per_class(self, maps: Tensor, items: Sequence[Item], codes: Tensor) -> dict[str, Tensor]:
        """Pixel average precision and cIoU (`area`) of every class that sounds, NaN of the others."""
        shape = (len(items), len(self.mapper.classes))
        pixel_ap, ciou = (torch.full(shape, torch.nan, dtype=torch.float64) for _ in range(2))
        for i, (item, code) in enumerate(zip(items, codes, strict=True)):
            for k, truth in _class_truth(item, code, self.mapper.classes).items():
                if bool(truth.any()):
                    pixel_ap[i, k] = pixel_average_precision(maps[i, k][None], truth[None], self.upsampling)[0]
                    ciou[i, k] = score_maps(maps[i, k][None], truth[None], "area", self.upsampling).ciou[0]
        return {"pixel_ap": pixel_ap, "class_ciou": ciou}

    def _noise(self, items: Sequence[Item], waveform: Tensor) -> Tensor:
        """White noise `(B, S)` of each sound's level, from the seed and the item's place."""
        level = waveform.square().mean(dim=1, keepdim=True).sqrt()
        rows = [
            generator(self.seed, self._places[item.id], Purpose.WHITE_NOISE).standard_normal(waveform.shape[1])
            for item in items
        ]
        return (level * torch.from_numpy(np.stack(rows)).float()).clamp(-1, 1)


def prior_map(name: str, rows: int, columns: int) -> Tensor:
    """`(1, R, C)` in [0, 1]: 1 everywhere (`whole`), or a bell around the centre, 0.5 a quarter of the side away."""
    if name == "whole":
        return torch.ones(1, rows, columns)
    y, x = ((torch.arange(n) + 0.5) / n - 0.5 for n in (rows, columns))
    return torch.exp2(-(y[:, None].square() + x[None].square()) / 0.25**2)[None]


def sources_chosen(scores: Tensor, codes: Tensor) -> Tensor:
    """Whether the source with the highest mean score inside its mask sounds.

    Args:
        scores: `(B, G, G)`.
        codes: `(B, G, G)` uint8 of `SceneSources`.

    Returns:
        float64 `(B,)`: 1 or 0, of equally high sources the share that sounds; NaN where no source, or every source in
        the picture sounds.
    """
    result = torch.full((len(scores),), torch.nan, dtype=torch.float64)
    for i, (own, code) in enumerate(zip(scores.double(), codes.long(), strict=True)):
        count = torch.bincount(code.flatten(), minlength=256)
        total = torch.bincount(code.flatten(), own.flatten(), minlength=256)
        there = count.nonzero()[:, 0]
        there = there[there % SOUNDS != 0]
        sounds = there >= SOUNDS
        if bool(sounds.any()) and not bool(sounds.all()):
            means = total[there] / count[there]
            best = means >= means.max() - 1e-9
            result[i] = sounds[best].double().mean()
    return result


def truth_map(item: Item, code: Tensor) -> Tensor:
    """The truth of an item, float32 `(G, G)` in [0, 1], from its boxes or from its mask of `SceneSources`."""
    if item.boxes is not None:
        return torch.from_numpy(item.boxes.truth(GRID))
    return (code > SOUNDS).float()


def _class_truth(item: Item, code: Tensor, classes: Sequence[str]) -> Mapping[int, Tensor]:
    """Truth `(G, G)` of the classes that an item has, by class number."""
    numbers = {name: number for number, name in enumerate(classes)}
    if item.boxes is not None:
        return {
            numbers[label]: torch.from_numpy(item.boxes.truth(GRID, label))
            for label in item.boxes.labels
            if label in numbers
        }
    found: dict[int, Tensor] = {}
    for source in item.annotation.sources if item.annotation is not None else ():
        if source.class_name in numbers:
            mask = (code == 1 + source.number + SOUNDS).float()
            k = numbers[source.class_name]
            found[k] = torch.maximum(found[k], mask) if k in found else mask
    return found
