"""Where a bundle's bytes come from: a directory, or a single-file archive (ZIP, stored) of it.

A source hands out the bytes of one named file and nothing else: no path, no handle. What was hashed is thus
what is used, and nobody can exchange the file in between. A directory is walked component by component
without following symbolic links; an archive is never unpacked, its members must be stored uncompressed, and
together they cannot claim more bytes than the archive has.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import zipfile
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Protocol

from edgeslim.errors import BundleError

from .manifest import MANIFEST_NAME, is_file_name

_NO_LINK = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO must not make us wait
_ZIP_ERRORS = (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, struct.error, OverflowError)
_AGAIN = "copy the bundle again, or export it again"


class Source(Protocol):
    """Read access to the files of one bundle."""

    def read(self, name: str, limit: int) -> bytes:
        """At most `limit` + 1 bytes of a file, so that a file that is too long shows.

        Raises BundleError where the file is missing or is not a regular file.
        """

    def unlisted(self, listed: set[str]) -> list[str]:
        """Names that the source holds beyond `listed` and that must not be there."""

    def __enter__(self) -> Source: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class DirectorySource:
    """A bundle as a directory. Files that the manifest does not list (built engines) are never read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def read(self, name: str, limit: int) -> bytes:
        """See Source.read."""
        *folders, last = name.split("/")
        with contextlib.ExitStack() as stack:
            parent = self._root
            for folder in folders:
                parent = self._open(folder, parent, os.O_DIRECTORY, name)
                stack.callback(os.close, parent)
            handle = self._open(last, parent, 0, name)
            stack.callback(os.close, handle)
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise BundleError(f"{self._path}: {name} is not a regular file", _AGAIN)
            with open(handle, "rb", closefd=False) as file:
                # The limit is a claim of the manifest: allocate no more than there is.
                return _read(file, min(limit, found.st_size), f"{self._path}: {name}")

    def _open(self, part: str, parent: int, flags: int, name: str) -> int:
        try:
            return os.open(part, _NO_LINK | flags, dir_fd=parent)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise _missing(self._path, name) from error
            with contextlib.suppress(OSError):
                if stat.S_ISLNK(os.stat(part, dir_fd=parent, follow_symlinks=False).st_mode):
                    raise BundleError(
                        f"{self._path}: {part!r} on the way to {name} is a symbolic link; a bundle has none, "
                        "for a link may lead out of it",
                        "copy the bundle with its links resolved: cp -rL",
                    ) from error
            raise BundleError(f"{self._path}: {name} cannot be read: {error.strerror}", _AGAIN) from error

    def unlisted(self, listed: set[str]) -> list[str]:
        """See Source.unlisted: a directory may hold more, such as engines built on this device."""
        return []

    def __enter__(self) -> DirectorySource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._root)


class ArchiveSource:
    """A bundle as one ZIP file. `path` only names it in errors; `file` is read, and closed at the end."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        try:
            self._zip = zipfile.ZipFile(file)
            self._members = self._check(self._zip.infolist(), file.seek(0, os.SEEK_END))
        except _ZIP_ERRORS as error:
            file.close()
            raise BundleError(
                f"{path} is neither a directory nor a readable ZIP archive: {error}",
                "give the path of a bundle written by `edgeslim export` or `edgeslim compress`",
            ) from error
        except BundleError:
            file.close()
            raise

    def _check(self, infos: list[zipfile.ZipInfo], archive_bytes: int) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            name = info.orig_filename  # `filename` is already cut at a NUL
            if not is_file_name(name.removesuffix("/")):
                raise BundleError(
                    f"{self._path}: the archive's entry {name!r:.100} is no plain path inside a bundle",
                    "do not use this archive: it was not written by edgeslim",
                )
            if name in members:
                raise BundleError(f"{self._path}: the archive has {name!r} twice", "do not use this archive")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise BundleError(f"{self._path}: {name!r} is a symbolic link", "archive the files themselves")
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                raise BundleError(
                    f"{self._path}: {name!r} is compressed ({info.compress_size} to {info.file_size} bytes); "
                    "a bundle's archive stores its files as they are",
                    "write it with archive=True, or pack the directory with `zip -0`",
                )
            if info.flag_bits & 0x1:
                raise BundleError(f"{self._path}: {name!r} is encrypted", "pack the bundle without a password")
            if not name.endswith("/"):
                members[name] = info
        total = sum(info.file_size for info in members.values())
        if total > archive_bytes:
            raise BundleError(
                f"{self._path}: the entries claim {total} bytes, the archive has {archive_bytes}",
                "do not use this archive: it was not written by edgeslim",
            )
        return members

    def read(self, name: str, limit: int) -> bytes:
        """See Source.read."""
        info = self._members.get(name)
        if info is None:
            raise _missing(self._path, name)
        place = f"{self._path}: {name}"
        try:
            with self._zip.open(info) as file:
                return _read(file, min(limit, info.file_size), place)
        except _ZIP_ERRORS as error:
            raise BundleError(f"{place} cannot be read: {error}", _AGAIN) from error

    def unlisted(self, listed: set[str]) -> list[str]:
        """See Source.unlisted: an archive is one artefact, so anything beyond the manifest is foreign."""
        return sorted(self._members.keys() - listed)

    def __enter__(self) -> ArchiveSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        self._file.close()


def open_source(path: Path) -> Source:
    """Open what `path` names. Raises BundleError where that is neither a directory nor an archive."""
    try:
        if path.is_dir():
            return DirectorySource(path)
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BundleError(
            f"no bundle at {path}: {error.strerror}", "give the path of a bundle (a directory or its archive)"
        ) from error
    file = open(handle, "rb")  # noqa: SIM115 - the source closes it
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        file.close()
        raise BundleError(f"{path} is neither a directory nor a regular file", "give the path of a bundle")
    return ArchiveSource(path, file)


def _read(file: IO[bytes], limit: int, place: str) -> bytes:
    try:
        return file.read(limit + 1)
    except OSError as error:
        raise BundleError(f"{place} cannot be read: {error}", _AGAIN) from error
    except MemoryError as error:
        raise BundleError(f"{place} does not fit into memory ({limit} bytes)", "use a device with more") from error


def _missing(path: Path, name: str) -> BundleError:
    if name == MANIFEST_NAME:
        return BundleError(
            f"{path} is not a bundle: it has no {MANIFEST_NAME}",
            "give the path of a bundle written by `edgeslim export` or `edgeslim compress`",
        )
    return BundleError(f"{path}: the file {name} is missing, though the manifest lists it", _AGAIN)
