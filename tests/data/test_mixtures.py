"""Which clips are mixed: groups of the training stream, weights of their members, lists for evaluation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion.data.clips import Clip, find_clips
from deepavfusion.data.dataset import epoch_order
from deepavfusion.data.loading import StepSampler, training_loader
from deepavfusion.data.mixture_set import MixtureSet, RatedView
from deepavfusion.data.mixtures import (
    Mixture,
    MixtureStream,
    Part,
    mix_clips,
    mix_pairs,
    mix_recordings,
    mixing_weights,
)
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.data.sets.pairs import MixturePair, read_mixture_pairs
from deepavfusion.data.views import TrainingView

CLIPS = [Clip(f"c{n}", f"{n}.mp4", label="abc"[n % 3]) for n in range(9)]
PARTS = [Part(clip, label=clip.label) for clip in CLIPS]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("shapes")
    write_sample_clips(folder, 5, duration_seconds=1.0, size=32)
    return find_clips(str(folder))


def test_groups_begin_with_every_clip_in_turn_and_repeat_none() -> None:
    stream = MixtureStream(CLIPS, TrainingView(), seed=3, group=3)
    groups = [stream.members(g) for g in range(18)]
    assert [group[0] for group in groups] == [*epoch_order(3, 0, 9), *epoch_order(3, 1, 9)]
    assert all(len(set(group)) == 3 for group in groups)
    assert groups == [stream.members(g) for g in range(18)]
    assert groups != [MixtureStream(CLIPS, TrainingView(), seed=4, group=3).members(g) for g in range(18)]
    apart = MixtureStream(CLIPS, TrainingView(), seed=3, group=3, partners="different")
    assert all({CLIPS[i].label for i in apart.members(g)} == set("abc") for g in range(30))
    # Partners are drawn from all clips alike.
    counts = Counter(i for g in range(3000) for i in stream.members(g)[1:])
    assert max(abs(counts[i] - 6000 / 9) for i in range(9)) < 5 * (6000 / 9) ** 0.5


def test_groups_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="mixtures of 4 need at least as many clips, there are 3"):
        MixtureStream(CLIPS[:3], TrainingView(), seed=0, group=4)
    with pytest.raises(ValueError, match="the clips have fewer than 4 classes"):
        MixtureStream(CLIPS, TrainingView(), seed=0, group=4, partners="different")
    with pytest.raises(ValueError, match="1 of 2 clips have no label"):
        MixtureStream([CLIPS[0], Clip("x", "x.mp4")], TrainingView(), seed=0, group=2, partners="different")


def test_what_is_read_does_not_depend_on_workers_or_division(shapes: list[Clip]) -> None:
    view = TrainingView((32, 32), 0.5)
    cpu = torch.device("cpu")

    def read(workers: int, accumulation: int) -> tuple[torch.Tensor, list[str]]:
        stream = MixtureStream(shapes, view, seed=1, group=2)
        with training_loader(stream, StepSampler(4, accumulation, 1, 0, 0, 2), workers, cpu) as loader:
            batches = list(loader)
        return torch.cat([b.waveform for b in batches]), [name for b in batches for name in b.ids]

    whole, ids = read(0, 1)
    for workers, accumulation in ((0, 2), (1, 1)):
        again, names = read(workers, accumulation)
        assert names == ids
        assert torch.equal(again, whole)


def test_weights_are_drawn_from_the_sample_number_alone() -> None:
    numbers = list(range(6000))
    weights = mixing_weights(0, numbers, 3, (2, 3), silent=0.1, single=0.2)
    assert set(np.unique(weights)) == {0, 1}
    np.testing.assert_array_equal(mixing_weights(0, [7, 4001], 3, (2, 3), 0.1, 0.2), weights[[7, 4001]])
    own = weights[numbers, [n % 3 for n in numbers]]
    others = weights.sum(1) - own
    assert (own == 0).mean() == pytest.approx(0.1, abs=0.02)
    assert (others[own == 0] >= 1).all()  # silence is asked for where something else sounds
    assert (others == 0).mean() == pytest.approx(0.2, abs=0.02)
    mixed = others[(own == 1) & (others > 0)]
    assert (mixed == 1).mean() == pytest.approx(0.5, abs=0.03)
    np.testing.assert_array_equal(mixing_weights(0, numbers, 2, (2, 2), 0, 0), np.ones((6000, 2)))


@pytest.mark.parametrize(("pairing", "same"), [("same", [1, 1]), ("different", [0, 0]), ("auto", [0, 1])])
def test_classes_of_a_mixture(pairing: str, same: list[int]) -> None:
    for count in (2, 3):
        mixtures = mix_clips(PARTS, count, 20, pairing, 5)  # type: ignore[arg-type]
        assert len({mixture.id for mixture in mixtures}) == 20
        for number, mixture in enumerate(mixtures):
            assert len({part.clip.id for part in mixture.parts}) == count
            assert mixture.same_class == same[number % 2]
            if same[number % 2]:
                assert len({part.label for part in mixture.parts}) == 1
            elif count == 2:
                assert len({part.label for part in mixture.parts}) == 2
            for wrong in mixture.wrong:
                assert wrong.clip.id not in {part.clip.id for part in mixture.parts}
                if len({part.label for part in mixture.parts}) < 3:
                    assert wrong.label not in {part.label for part in mixture.parts}
        assert mixtures == mix_clips(PARTS, count, 20, pairing, 5)  # type: ignore[arg-type]
        assert mixtures != mix_clips(PARTS, count, 20, pairing, 6)  # type: ignore[arg-type]


def test_every_clip_is_the_first_of_a_mixture_once() -> None:
    firsts = [mixture.parts[0].clip.id for mixture in mix_clips(PARTS, 2, 0, "any", 0)]
    assert sorted(firsts) == [clip.id for clip in CLIPS]


def test_unlabelled_clips_are_mixed_as_they_come() -> None:
    bare = [Part(Clip(f"c{n}", f"{n}.mp4")) for n in range(4)]
    assert [mixture.same_class for mixture in mix_clips(bare, 2, 0, "auto", 0)] == [None] * 4
    with pytest.raises(ValueError, match="pairing same: 4 of 4 clips have no label"):
        mix_clips(bare, 2, 0, "same", 0)
    with pytest.raises(ValueError, match="mixtures of 2 and a wrong image need 3 clips, there are 2"):
        mix_clips(bare[:2], 2, 0, "any", 0)
    with pytest.raises(ValueError, match="no class has 4 clips"):
        mix_clips(PARTS, 4, 0, "same", 0)


def test_a_published_list_names_what_is_missing() -> None:
    pairs = [MixturePair(("c0", "c1"), ("a", "b")), MixturePair(("c0", "zz"), ("a", "a"))]
    mixtures, missing = mix_pairs([*pairs, MixturePair(("c3", "c5"), ("a", "c"))], CLIPS, 0)
    assert [mixture.id for mixture in mixtures] == ["c0 + c1", "c3 + c5"]
    assert [part.clip.id for part in mixtures[0].wrong] == ["c5", "c5"]  # the only one of another class and clip
    assert missing == ("c0 + zz",)
    with pytest.raises(ValueError, match=r"none of the 1 pairs has both clips, such as c0 \+ zz"):
        mix_pairs(pairs[1:2], CLIPS, 0)
    with pytest.raises(ValueError, match="a wrong image needs a clip that is not in the mixture"):
        mix_pairs(pairs[:1], CLIPS, 0)


def test_the_real_list_of_pairs(shared: Path) -> None:
    pairs = read_mixture_pairs(str(shared / "annotations" / "vggmusic_eval_ss.csv"))
    clips = [Clip(name, f"{name}.mp4") for name in sorted({name for pair in pairs for name in pair.ids})]
    mixtures, missing = mix_pairs(pairs, clips, 0)
    assert (len(mixtures), missing) == (1201, ())
    assert Counter(mixture.same_class for mixture in mixtures) == {False: 910, True: 291}


def test_parts_of_a_mixture_come_one_after_the_other(shapes: list[Clip]) -> None:
    parts = [Part(clip, label=clip.label) for clip in shapes]
    mixtures = (Mixture("m", tuple(parts[:2]), tuple(parts[2:4])), Mixture("n", tuple(parts[1:3]), tuple(parts[3:5])))
    for rate, count in ((16000, 8000), (11025, 5512)):
        items = MixtureSet(mixtures, RatedView((32, 32), count / rate, sample_rate=rate))
        assert len(items) == 8
        samples = [items[i] for i in range(8)]
        wanted = [*shapes[:4], shapes[1], shapes[2], shapes[3], shapes[4]]
        assert [sample.clip.id for sample in samples] == [clip.id for clip in wanted]
        assert all(sample.waveform.shape == (count,) for sample in samples)
        assert np.array_equal(samples[1].image, samples[4].image)
        assert np.abs(samples[0].waveform).max() > 0.01


def test_recordings_bring_their_own_mixture() -> None:
    mixtures = mix_recordings([(CLIPS[0], PARTS[:1]), (CLIPS[1], PARTS[1:2])], 0)
    assert [m.recording for m in mixtures] == CLIPS[:2]
    assert [m.wrong[0].clip for m in mixtures] == [CLIPS[1], CLIPS[0]]
    assert MixtureSet(mixtures, RatedView()).num_parts == 3
