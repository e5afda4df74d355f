"""Download published weight files: resumable, verified, and installed atomically."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from kdtalker.core.errors import InputError, OutputError
from kdtalker.weights.files import check_contents, checksum_path, is_valid, sha256_of
from kdtalker.weights.find import warn_once
from kdtalker.weights.spec import RemoteSource, Weight

_DISK_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}  # errors of a full disk, a size limit or a quota


class DownloadError(OutputError):
    """Raised where no source has the file; other files may still be available."""


class SourceUnavailable(Exception):
    """Raised where one source does not deliver the file; the next may."""


@dataclass(frozen=True)
class RemoteFile:
    """Describe a file on a server before download: size, checksum, version.

    tag: identifies the version, so that a partial download can be resumed; None where it cannot.
    """

    url: str
    on_hub: bool
    tag: str | None
    bytes: int | None
    sha256: str | None


def fetch(weight: Weight, folder: Path) -> str:
    """Download a published file into the folder, verified; return a clause that says by what it was verified.

    An interrupted download leaves a partial file in the folder (`.NAME.*.part`), which the next call resumes. A valid
    file that exists already is kept, also where another process has just installed it. The table's sha256 is a hint:
    where no source has that file, one that the hub itself verifies is accepted with a warning. Raises DownloadError
    where no source has the file, OutputError where it cannot be written, InputError where downloads are switched off
    (HF_HUB_OFFLINE).
    """
    from huggingface_hub import constants

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / f".{weight.name}.lock"):
            if is_valid(weight, folder / weight.name):
                return "already there"
            if constants.HF_HUB_OFFLINE:
                raise InputError(
                    f"'{weight.name}' is to be fetched, but HF_HUB_OFFLINE says to stay off the network; unset it."
                )
            return _fetch_from_sources(weight, folder)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"The folder '{folder}' cannot be used ({error.strerror}); choose another one.") from None
        full = error.errno in _DISK_FULL
        reason = "there is no space left for it" if full else error.strerror or str(error)
        raise OutputError(f"'{weight.name}' could not be written into '{folder}': {reason}.") from None


@contextmanager
def file_lock(lock: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock between processes; the last holder removes its file. Raises TimeoutError where another one holds it,
    if not to wait."""
    from filelock import FileLock

    with FileLock(lock, timeout=-1 if wait else 0):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows does not remove an open file
                lock.unlink()


def _fetch_from_sources(weight: Weight, folder: Path) -> str:
    """Try the sources in order until one delivers the file. Raises DownloadError with the reasons of all."""
    reasons: list[str] = []
    for source, remote in _candidates(weight, reasons):
        try:
            part = folder / f".{weight.name}.{remote.tag or 'new'}.part"
            _download(remote, part)
            sha256 = _verify_download(weight, remote, part)
            install(part, folder / weight.name, sha256)
        except SourceUnavailable as error:
            reasons.append(f"{source}: {error}")
            continue
        if weight.sha256 and sha256 != weight.sha256:
            differs = f"its sha256 is {sha256}, expected was {weight.sha256}"
            warn_once(f"'{weight.name}' was fetched, though it is another file than expected: {differs}.")
        if remote.sha256:
            return "sha256 as the hub says"
        return "sha256 as in the table" if weight.sha256 == sha256 else "no sha256 is published, contents as expected"
    raise DownloadError(f"'{weight.name}' could not be fetched ({'; '.join(reasons)})")


def _candidates(weight: Weight, reasons: list[str]) -> Iterator[tuple[RemoteSource, RemoteFile]]:
    """List the sources' files: those that may be the table's first, those with another sha256 last; collect the reasons
    of sources that fail."""
    others = []
    for source in weight.published:
        try:
            remote = _fetch_metadata(source)
        except SourceUnavailable as error:
            reasons.append(f"{source}: {error}")
            continue
        if weight.sha256 and remote.sha256 and remote.sha256 != weight.sha256:
            others.append((source, remote))
        else:
            yield source, remote
    yield from others


def check_endpoint() -> None:
    """Check that HF_ENDPOINT is a URL, if set. Raises InputError."""
    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint is None:
        return
    try:
        parts = urlsplit(endpoint)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_address = False
    if not is_address:
        raise InputError(f"The variable HF_ENDPOINT is '{endpoint}', wanted an address such as https://mirror.example.")


def _fetch_metadata(source: RemoteSource) -> RemoteFile:
    """Query a file's size and checksum from the hub; GitHub gives neither. Raises SourceUnavailable."""
    if source.github:
        return RemoteFile(source.url, False, None, None, None)
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(source.repository, source.path)
    try:
        metadata = get_hf_file_metadata(url)
    except Exception as error:  # the HTTP library's errors have no common class over the hub library's versions
        raise SourceUnavailable(_describe_error(error, url)) from None
    sha256 = metadata.etag if metadata.etag and re.fullmatch(r"[0-9a-f]{64}", metadata.etag) else None
    tag = re.sub(r"[^\w-]", "", metadata.etag or "")[:16] if metadata.size else None
    return RemoteFile(url, True, tag or None, metadata.size, sha256)


def _download(remote: RemoteFile, part: Path) -> None:
    """Download into the partial file, resuming at its end as long as every attempt makes progress.

    Raises SourceUnavailable where the network fails, OSError where the disk does.
    """
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    token = build_hf_headers() if remote.on_hub else {}  # send a token to the hub alone
    headers = {**token, "Accept-Encoding": "identity"}  # uncompressed, as ranges count raw bytes
    if not remote.tag or (part.exists() and part.stat().st_size > (remote.bytes or 0)):
        part.unlink(missing_ok=True)
    while True:
        have = part.stat().st_size if part.exists() else 0
        if remote.bytes and shutil.disk_usage(part.parent).free < remote.bytes - have:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            with part.open("ab") as file:
                http_get(remote.url, file, resume_size=have, headers=headers, expected_size=remote.bytes)
            return
        except KeyboardInterrupt:
            _keep_partial(remote, part)
            raise
        except Exception as error:  # of many libraries; only disk errors have an errno
            if isinstance(error, OSError) and error.errno and not isinstance(error, (ConnectionError, TimeoutError)):
                part.unlink(missing_ok=True)
                raise
            got = part.stat().st_size
            if remote.bytes and got > remote.bytes:  # the server ignored the range and sent the file from its start
                part.unlink()
                raise SourceUnavailable(f"more than the {remote.bytes:,} bytes that were announced arrived") from None
            if got <= have or not remote.tag:
                raise SourceUnavailable(_describe_error(error, remote.url) + _keep_partial(remote, part)) from None


def _keep_partial(remote: RemoteFile, part: Path) -> str:
    """Keep the partial file if it can be resumed, else remove it; return a clause about it for the error."""
    size = part.stat().st_size
    if size and remote.tag:
        return f"; the first {size:,} bytes are kept, the same command goes on from there"
    part.unlink()
    return ""


def _verify_download(weight: Weight, remote: RemoteFile, part: Path) -> str:
    """Verify size, checksum and contents of a download and return its sha256; remove it where it is another file.

    Raises SourceUnavailable.
    """
    size, wanted, sha256 = part.stat().st_size, remote.bytes, sha256_of(part)
    try:
        if wanted is not None and size != wanted:
            raise SourceUnavailable(f"{size:,} bytes arrived, wanted {wanted:,}; they are thrown away")
        if remote.sha256 and sha256 != remote.sha256:
            raise SourceUnavailable("wrong bytes arrived (sha256); they are thrown away")
        check_contents(weight, part, stub_code=True)
    except InputError as error:
        part.unlink()
        raise SourceUnavailable(str(error).rstrip(".").replace(str(part), weight.name)) from None
    except SourceUnavailable:
        part.unlink()
        raise
    return sha256


def install(part: Path, target: Path, sha256: str) -> None:
    """Install a verified download atomically under its name, its sha256 recorded beside it."""
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    note = part.with_name(f".{target.name}.note.part")
    note.write_text(f"{sha256}  {target.name}\n", "ascii")
    note.replace(checksum_path(target))
    part.replace(target)
    for older in target.parent.glob(f".{target.name}.*.part"):
        older.unlink()


def _describe_error(error: Exception, url: str) -> str:
    """Describe an error of the network libraries in a clause."""
    from huggingface_hub.errors import HfHubHTTPError

    host = urlsplit(url).netloc
    if isinstance(error, HfHubHTTPError):
        return f"{host} answers {error.response.status_code}"
    words = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return f"{host} cannot be reached ({words[:120]})"
