"""A directory that is fit for a spool: there, ours, and nobody else's to look into. Blocking."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from prewarmkit.errors import ConfigurationError

__all__ = ["FULL", "prepare"]

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_OTHERS = 0o077


def prepare(directory: Path, is_ours: Callable[[str], bool]) -> str:
    """Make the directory, for us alone, or see that it is so; its real path.

    One that others may look into is closed to them only if nothing but a spool's files is in it: it may be anybody's.

    Raises:
        ConfigurationError: It cannot be used; the message says why.
        OSError: The disk is full, which may pass.
    """
    name = os.fspath(directory)
    if os.name != "posix":
        raise ConfigurationError("SpooledSource needs the file locks of POSIX: use the source itself here.")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            _take(directory, is_ours)
        else:
            directory.chmod(0o700)  # whatever the umask took
        return os.path.realpath(directory)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise ConfigurationError(
            f"The spool's directory {name!r} cannot be used ({error.strerror}): name another one, or make it."
        ) from error


def _take(directory: Path, is_ours: Callable[[str], bool]) -> None:
    status = directory.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigurationError(f"{os.fspath(directory)!r} is no directory: SpooledSource needs one.")
    if status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"The spool's directory {os.fspath(directory)!r} belongs to another user: name one of your own."
        )
    if status.st_mode & _OTHERS:
        if status.st_mode & stat.S_ISVTX or not all(is_ours(each.name) for each in directory.iterdir()):
            raise ConfigurationError(
                f"The spool's directory {os.fspath(directory)!r} is open to other users and has others' files in it: "
                "name one that is for the spool alone, or take the others' permissions away (chmod 700)."
            )
        directory.chmod(0o700)
