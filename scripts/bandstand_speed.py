"""Measures what a clip of the band and one of the stamps cost, in turn: seconds of one processor core per clip.

python scripts/bandstand_speed.py --stamps /usr/share/tuxpaint/stamps --out docs/results/stamps_speed.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from deepavfusion.atomic import write_text
from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import make_cast, make_clip
from deepavfusion.bandstand.writer import write_clip

ROUND = 20
"""Clips of one cast before it is the other's turn."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stamps", required=True, help="folder of the stamps")
    parser.add_argument("--backgrounds", help="folder of photographs")
    parser.add_argument("--clips", type=int, default=300, help="clips of each cast, of the split pretrain")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    words = parser.parse_args()
    stamps = BandstandConfig("", cast="stamps", stamps=words.stamps, backgrounds=words.backgrounds)
    configs = {"band": BandstandConfig(""), "stamps": stamps}
    casts, reading = {}, {}
    for name, config in configs.items():
        start = time.process_time()
        casts[name] = make_cast(config)
        reading[name] = time.process_time() - start
    made, written = dict.fromkeys(configs, 0.0), dict.fromkeys(configs, 0.0)
    for first in range(0, words.clips, ROUND):
        for name, config in configs.items():
            with tempfile.TemporaryDirectory() as folder:
                for index in range(first, min(first + ROUND, words.clips)):
                    start = time.process_time()
                    clip = make_clip(config, casts[name], "pretrain", index)
                    middle = time.process_time()
                    write_clip(folder, clip)
                    made[name] += middle - start
                    written[name] += time.process_time() - middle
    record = {
        name: {
            "clips": words.clips,
            "reading_seconds": round(reading[name], 3),
            "drawing_seconds": round(made[name] / words.clips, 4),
            "writing_seconds": round(written[name] / words.clips, 4),
        }
        for name in configs
    }
    write_text(words.out, json.dumps(record, indent=1) + "\n")
    sys.stdout.write(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
