"""File names of clips, as downloaders and data sets write them, converted to one spelling.

That spelling is VGGSound's, `---g-f_I2yQ_000001`: the id of the video and the second in which the segment starts, six
digits. Other spellings in use have also the end (`_000001_000011`), seconds with and without decimals (`_1_11`,
`_1.000_11.000`), milliseconds (`_1000_11000`), and `YTID_---g-f_I2yQ_st_1.0_dur_10.0`.
"""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath

from deepavfusion.data.file_kinds import kind_of

_NUMBER = r"(\d+(?:\.\d+)?)"
_START_LENGTH = re.compile(rf"(.+)[_-]st[_-]{_NUMBER}[_-]dur[_-]{_NUMBER}")
_START_END = re.compile(rf"(.+)[_-]{_NUMBER}[_-]{_NUMBER}")
_START = re.compile(rf"(.+)[_-]{_NUMBER}")
_PREFIX = "YTID_"


def stem_of(path: str) -> str:
    """The name of a file without folder and without the suffix of a video, sound or photo; others stay."""
    name = PurePosixPath(path).name
    return os.path.splitext(name)[0] if kind_of(name) else name


def clip_name(path: str) -> str:
    """What names a clip in annotation files: the file's name without suffix and without an end time.

    `clips/dog/---g-f_I2yQ_000001_000011.mp4` gives `---g-f_I2yQ_000001`.
    """
    return re.sub(r"(_\d{6})_\d{6}$", r"\1", stem_of(path))


def segment_id(video: str, start_seconds: float) -> str:
    """The usual name of a stretch of a YouTube video: `---g-f_I2yQ` from second 1 is `---g-f_I2yQ_000001`."""
    return f"{video}_{int(start_seconds):06d}"


def possible_names(path: str) -> tuple[str, ...]:
    """Every clip that a file's name may mean, the name itself first.

    A name does not tell whether its numbers are seconds, milliseconds or part of a YouTube id (which may itself end in
    an underscore and six digits), so each reading that makes sense is one.
    """
    stem = stem_of(path)
    bare = stem.removeprefix(_PREFIX)
    found = [stem, bare]
    if not bare[-1:].isdigit():
        return tuple(dict.fromkeys(found))
    if match := _START_LENGTH.fullmatch(bare) or _START.fullmatch(bare):
        found.append(segment_id(match[1], float(match[2])))
    if match := _START_END.fullmatch(bare):
        start, end = float(match[2]), float(match[3])
        if start < end:
            found.append(segment_id(match[1], start))
            if "." not in match[2] + match[3] and end - start >= 1000:
                found.append(segment_id(match[1], start / 1000))
    return tuple(dict.fromkeys(found))
