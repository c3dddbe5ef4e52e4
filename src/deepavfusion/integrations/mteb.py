"""Our models as encoders of mteb, for its tasks of images, video and sound.

    import mteb
    from deepavfusion.integrations.mteb import DeepAVFusionEncoder
    mteb.evaluate(DeepAVFusionEncoder("runs/a"), tasks)

Every item becomes one unit vector, the mean of its windows' (`archive.space`): of images or video by what is seen, of
sound by what is heard, of video with sound by both. Items are read by this package's reader: files and their bytes as
`datasets` gives them undecoded (`Video(decode=False)`), and what it gives decoded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import NamedTemporaryFile
from typing import Any, Literal

import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from numpy.typing import NDArray
from PIL import Image

from deepavfusion.archive.space import VectorSpace
from deepavfusion.inference.arrays import Arrays
from deepavfusion.inference.inputs import open_recording
from deepavfusion.version import __version__

KINDS = ("image", "video", "audio")
"""Columns of a batch that are read."""


class DeepAVFusionEncoder(AbsEncoder):
    """A trained model as mteb's `EncoderProtocol` has it."""

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        *,
        device: str | None = None,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        **others: Any,
    ) -> None:
        """
        Args:
            model_name: a run, a model folder, shipped:NAME, or any other place of a model.
            revision: of mteb's records; by default the digest of the weights.
            device: cpu or cuda; None is CUDA if there is one.
            precision: of the forward pass.
            others: what mteb tells besides.

        Raises:
            ValueError: there is no such model.
        """
        self.model = self.space = VectorSpace.open(model_name, device or "auto", precision)
        name = os.path.basename(os.path.normpath(model_name)).replace(":", "-")
        self.mteb_model_meta = ModelMeta(
            loader=None,
            name=f"deepavfusion/{name}",
            revision=revision or self.space.digest(),
            release_date=None,
            languages=None,
            n_parameters=sum(p.numel() for p in self.space.encoder.parameters()),
            memory_usage_mb=None,
            max_tokens=None,
            embed_dim=self.space.dim,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name="cosine",
            use_instructions=False,
            training_datasets=None,
            modalities=list(KINDS),
        )
        self.version = __version__

    def encode(
        self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, prompt_type: Any = None, **others: Any
    ) -> NDArray[np.float32]:
        """Unit vectors `(N, E)` of all items.

        Args:
            inputs: batches, dictionaries of lists.
            task_metadata: of the task.
            hf_split: as of the protocol, like what follows; the vectors do not depend on it.
            hf_subset: the same.
            prompt_type: the same.
            others: the same.

        Raises:
            ValueError: items of text, or senses to be compared by a model without a joint space.
            MediaError: an item that cannot be read.
        """
        if not self.space.is_joint and _senses(task_metadata.category) > 1:
            raise ValueError(
                f"{task_metadata.name}: compares images with sound, and {self.mteb_model_meta.name} has no joint "
                f"space; one comes from pretrain with --alignment.weight above 0"
            )
        rows = []
        for batch in inputs:
            there = [kind for kind in KINDS if kind in batch]
            if not there:
                raise ValueError(
                    f"{task_metadata.name}: items of {', '.join(batch)}; this model reads {', '.join(KINDS)}"
                )
            for number in range(len(batch[there[0]])):
                rows.append(self._vector({kind: batch[kind][number] for kind in there}))
        return np.stack(rows)

    def _vector(self, item: Mapping[str, Any]) -> NDArray[np.float32]:
        seen, heard = item.get("video", item.get("image")), item.get("audio")
        stream = "both" if seen is not None and heard is not None else "audio" if seen is None else "image"
        if stream not in self.space.streams:
            raise ValueError("the encoder of this model does not fuse images and sound; encode one of them")
        with _given(seen) as picture, _given(heard) as sound:
            pair = picture if heard is None else sound if seen is None else (picture, sound)
            with open_recording(pair) as recording:
                windows = self.space.windows(recording)
                there = windows.present[stream]
                if not there.any():
                    raise ValueError(f"{recording.name}: has no {stream}")
        mean = windows.streams[stream][there].mean(axis=0)
        return mean / np.float32(np.linalg.norm(mean))


def _senses(category: str | None) -> int:
    """How many of images and sound a task such as `v2a` compares with each other."""
    sides = [side.replace("v", "i") for side in (category or "").split("2")]
    return len(set(sides)) if all(set(side) <= {"i", "a"} for side in sides) else 1


@contextmanager
def _given(item: Any) -> Iterator[Any]:
    """An item of a column as this package's reader takes it."""
    if item is None or isinstance(item, (str, os.PathLike, Image.Image)):
        yield item
    elif isinstance(item, Mapping) and "array" in item:
        yield Arrays(sound=np.asarray(item["array"]).T, rate=int(item["sampling_rate"]), name="audio")
    elif isinstance(item, Mapping) and item.get("bytes") is not None:
        with NamedTemporaryFile(suffix=os.path.splitext(item.get("path") or "")[1]) as file:
            file.write(item["bytes"])
            file.flush()
            yield file.name
    elif isinstance(item, Mapping) and item.get("path"):
        yield item["path"]
    elif hasattr(item, "get_all_samples"):  # torchcodec's
        samples = item.get_all_samples()
        yield Arrays(sound=samples.data, rate=int(samples.sample_rate), name="audio")
    elif hasattr(item, "metadata") and hasattr(item, "get_frames_in_range"):
        frames = item.get_frames_in_range(0, item.metadata.num_frames).data
        yield Arrays(frames, fps=float(item.metadata.average_fps), name="video")
    else:
        raise ValueError(f"items of type {type(item).__name__} are not supported: give paths, or Video(decode=False)")
