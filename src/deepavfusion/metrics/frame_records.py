"""Integer counts of scored frames, kept so that no score depends on the order of the frames.

Frames arrive in batches of any size and from any number of processes. Each adds a row of exact counts under its clip
and frame number; results are computed from all rows in one fixed order, so they are bit-equal. A frame that arrives
twice (padding of a distributed sampler) is an error and is not counted twice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Rows = dict[str, NDArray]


class FrameRecords:
    """Rows of named columns, one row per frame."""

    def __init__(self) -> None:
        self._parts: list[Rows] = []
        self.num_unlabelled = 0

    def __len__(self) -> int:
        return sum(len(part["clip"]) for part in self._parts)

    def labelled(self, keep: Tensor | None, *batch: Tensor) -> list[Tensor]:
        """The rows of each tensor `(B, ...)` where `keep`, bool `(B,)`, is true; the others are counted."""
        if keep is None:
            return list(batch)
        self.num_unlabelled += int((~keep).sum())
        return [tensor[keep.to(tensor.device)] for tensor in batch]

    def add(self, clips: Tensor, frames: Tensor, **columns: Tensor) -> None:
        """Append rows.

        Args:
            clips: int `(B,)`, number of each frame's clip in the list of clips.
            frames: int `(B,)`, number of the frame in its clip.
            columns: `(B, ...)` each.
        """
        columns = {"clip": clips, "frame": frames, **columns}
        self._parts.append({name: column.cpu().numpy() for name, column in columns.items()})

    def extend(self, other: FrameRecords) -> None:
        """Take over the rows of another process."""
        self._parts.extend(other._parts)
        self.num_unlabelled += other.num_unlabelled

    def rows(self) -> Rows:
        """All rows, by clip and frame.

        Raises:
            ValueError: no rows, or a frame that occurs twice.
        """
        if not len(self):
            raise ValueError(f"no labelled frame was scored ({self.num_unlabelled} without label)")
        rows = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        order = np.lexsort((rows["frame"], rows["clip"]))
        rows = {name: column[order] for name, column in rows.items()}
        twice = (np.diff(rows["clip"]) == 0) & (np.diff(rows["frame"]) == 0)
        if twice.any():
            place = int(twice.argmax())
            raise ValueError(f"frame {rows['frame'][place]} of clip {rows['clip'][place]} was scored twice")
        return rows


def sums_by(groups: NDArray, values: NDArray) -> tuple[NDArray, NDArray]:
    """The distinct values of sorted `groups` `(n,)`, and the sum of `values` `(n, ...)` over each."""
    names, starts = np.unique(groups, return_index=True)
    return names, np.add.reduceat(values, starts, axis=0)
