"""The results of an audit so far, on disk, from which a stopped audit continues."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

from deepavfusion.atomic import writing
from deepavfusion.data.clips import Clip


class AuditJournal:
    """Rows in the order they were found, kept until the manifest is written."""

    def __init__(self, path: str, settings: dict[str, object]) -> None:
        self.path, self.head = path, json.dumps(settings)

    def __enter__(self) -> AuditJournal:
        rows = self.read()
        with writing(self.path), open(self.path, "w", encoding="utf-8") as file:  # drops what a kill left half-written
            file.writelines(f"{line}\n" for line in (self.head, *(json.dumps(asdict(row)) for row in rows)))
        self.file = open(self.path, "a", encoding="utf-8")
        return self

    def __exit__(self, *exception: object) -> None:
        with writing(self.path):
            self.file.close()

    def add(self, clip: Clip) -> None:
        with writing(self.path):
            self.file.write(json.dumps(asdict(clip)) + "\n")
            self.file.flush()

    def read(self) -> list[Clip]:
        if not os.path.exists(self.path):
            return []
        with open(self.path, encoding="utf-8") as file:
            lines = file.read().split("\n")[:-1]  # a last line without its end was being written
        return [Clip(**json.loads(line)) for line in lines[1:]] if lines and lines[0] == self.head else []

    def remove(self) -> None:
        os.remove(self.path)
