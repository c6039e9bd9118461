"""Where the project's files are, whole writes, and locks between processes."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
import socket
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import filelock

from dcn_study.errors import ConfigurationError, LockedError

__all__ = ["file_sha256", "locked", "make_folder", "now", "project_root", "replacing", "temporary", "wait_for"]

TOLD_AGAIN = 30  # seconds after which a process that waits says so again


def project_root() -> Path:
    """Returns the clone of the project that this folder is in, or else the one that this package is installed from.

    Raises:
        ConfigurationError: if there is neither.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).parents[2]):
        if (folder / "_config.yml").is_file() and (folder / "book").is_dir():
            return folder
    raise ConfigurationError(f"not a clone of the project: {here} has no _config.yml and book, here or above")


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Gives the path of a temporary file or folder next to `path`, with the same ending; it is removed at the end.

    Those that processes of this machine have left there for the same path, because they were killed, are removed first.
    """
    make_folder(path.parent)
    mine = f".{path.name}.{socket.gethostname()}@"
    for left in path.parent.glob(f"{glob.escape(mine)}*"):
        process = left.name.removeprefix(mine).split(".")[0]
        if process.isdecimal() and not _runs(int(process)):
            _remove(left)
    ending = "".join(path.suffixes[-2:])
    found = path.with_name(f"{mine}{os.getpid()}.{uuid.uuid4().hex[:8]}{ending}")
    try:
        yield found
    finally:
        _remove(found)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path with the same ending, and replaces `path` by it if all went well."""
    with temporary(path) as written:
        written.touch()  # with the permissions that the user gives new files
        yield written
        os.replace(written, path)


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, if they are not there.

    Raises:
        NotADirectoryError: if a file is in its place.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"{path} must be a folder. Received: a file, there or above it") from None


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Holds a lock on behalf of this process. The operating system releases it when the process ends, however it ends.

    Args:
        path: the lock file; it stays. A file of the same name that ends in `.holder` says who holds it.
        what: what is locked, for the message.

    Raises:
        LockedError: if another process holds the lock.
    """
    make_folder(path.parent)
    holder = path.with_suffix(".holder")
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        try:
            who = holder.read_text(encoding="utf-8") or "another process"
        except OSError:  # it has not said so yet, or has just gone
            who = "another process"
        raise LockedError(f"{what} is in use by {who}. Wait for it or stop it; lock: {path}") from None
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {now()}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
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
