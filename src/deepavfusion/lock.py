"""One writer at a time: a process locks what it writes for as long as it lives.

The lock is a record lock of the operating system (POSIX `fcntl`) on a small file, not the existence of that file: it
ends with its process, however that ends, and is not inherited by the processes that read clips. Over NFS and other
shared file systems it holds between machines where these support such locks; where they refuse, a warning says so.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deepavfusion.atomic import writing

PATIENCE_SECONDS = 3.0
"""How long to wait for a process that is just ending."""
_HELD: set[str] = set()
"""Lock files of this process, which would get its own locks again."""


class InUseError(ValueError):
    """Another process is writing the same; the message names both."""


@contextmanager
def sole_writer(folder: str | os.PathLike[str], flag: str, name: str = ".lock") -> Iterator[None]:
    """Be the only process that writes something in a folder; of many processes of one torchrun the first is asked.

    Args:
        folder: is made, and removed again if nothing was written into it.
        flag: the setting that names what is written, for the message.
        name: of the lock file, one for each thing that may be written on its own. It is gone afterwards.

    Raises:
        InUseError: a living process has it.
        NotWrittenError: the folder cannot be written.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    missing = [place for place in (Path(folder), *Path(folder).parents) if not place.exists()]
    path, owner = os.path.realpath(os.path.join(folder, name)), os.getpid()
    with writing(folder):
        os.makedirs(folder, exist_ok=True)
        descriptor = _lock(path, os.fspath(folder), flag)
    _HELD.add(path)
    try:
        yield
    finally:
        if os.getpid() == owner:
            _HELD.discard(path)
            if descriptor is not None:
                with suppress(OSError):
                    os.remove(path)  # while it is locked: it is nobody else's
                os.close(descriptor)
            for place in missing:
                with suppress(OSError):  # something is in it
                    place.rmdir()


def _lock(path: str, folder: str, flag: str) -> int | None:
    """The descriptor of the locked file; None where the file system knows no locks, which is warned of."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        if path in _HELD:
            raise InUseError(f"{folder} is being written by this process already: give another {flag}")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 1000, 0).decode("utf-8", "replace").strip()
            os.close(descriptor)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                warnings.warn(
                    f"{folder} is on a file system without locks ({error.strerror}): make sure that no other process "
                    f"writes there",
                    stacklevel=4,
                )
                return None
            if time.monotonic() > deadline:
                raise InUseError(
                    f"{folder} is being written by {holder or 'another process'}: wait until it ends or stop it, or "
                    f"give another {flag}"
                ) from None
            time.sleep(0.1)
            continue
        if _is_there(path, descriptor):
            about = f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
            with suppress(OSError):  # a full disk locks all the same
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, about.encode(), 0)
            return descriptor
        os.close(descriptor)  # its holder ended, and removed it, between opening and locking


def _is_there(path: str, descriptor: int) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
