"""The digest that identifies the content of a file."""

from __future__ import annotations

import hashlib


def file_digest(path: str) -> str:
    """BLAKE2 digest of a file's bytes, as an audit keeps it. Raises OSError."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
