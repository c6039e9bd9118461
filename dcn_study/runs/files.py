"""Where the project's files are, whole writes, and locks between processes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import filelock

from dcn_study.errors import LockedError

__all__ = ["file_sha256", "locked", "now", "project_root", "replacing", "wait_for"]

TOLD_AGAIN = 30  # seconds after which a process that waits says so again


def project_root() -> Path:
    """Returns the nearest folder from here upwards that holds `_config.yml` and `book`, or this folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "_config.yml").is_file() and (folder / "book").is_dir():
            return folder
    return here


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path with the same ending, and replaces `path` by it if all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = "".join(path.suffixes[-2:])
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=ending)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Holds a lock on behalf of this process. The operating system releases it when the process ends, however it ends.

    Args:
        path: the lock file; it stays. A file of the same name that ends in `.holder` says who holds it.
        what: what is locked, for the message.

    Raises:
        LockedError: if another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".holder")
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        who = holder.read_text(encoding="utf-8") if holder.is_file() else "another process"
        raise LockedError(f"{what} is in use by {who}. Wait for it or stop it; lock: {path}") from None
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {now()}", encoding="utf-8")
        yield
        holder.unlink(missing_ok=True)
    finally:
        lock.release()


def wait_for(path: Path, why: str) -> None:
    """Waits until no process holds a lock, and says why, at once and now and then.

    Args:
        path: the lock file, as for `locked`.
        why: what is waited for.
    """
    while True:
        print(f"waiting: {why}", file=sys.stderr, flush=True)
        with contextlib.suppress(filelock.Timeout), filelock.FileLock(path).acquire(timeout=TOLD_AGAIN):
            return


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
