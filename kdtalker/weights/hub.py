"""Fetching a published weight file: resumed where it was cut, checked, and only then put in its place."""

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
from kdtalker.weights.files import check_contents, is_good, note_path, sha256_of
from kdtalker.weights.find import warn_once
from kdtalker.weights.spec import Source, Weight

_DISK_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


class NotFetched(OutputError):
    """No source gave the file; another file may still be had."""


class _NotHad(Exception):
    """Why one source did not give the file; the next one may."""


@dataclass(frozen=True)
class _Offer:
    """What a source says of its file before it is loaded. tag: names this version of it, so that a beginning of it can
    be gone on with; None where it cannot."""

    url: str
    on_hub: bool
    tag: str | None
    bytes: int | None
    sha256: str | None


def fetch(weight: Weight, folder: Path) -> str:
    """Put the published file into the folder, verified; returns what it was verified by.

    A download that breaks off leaves its beginning in the folder (`.NAME.*.part`), from where the next call goes on. A
    file that is already there as it should be is left alone, also where another process has just put it there.
    The table's sha256 is a hint: a file that the hub itself verifies is taken with a warning where no source has that
    one. Raises NotFetched where no source has the file, OutputError where it cannot be written, InputError where
    fetching is switched off.
    """
    from huggingface_hub import constants

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / f".{weight.name}.lock"):
            if is_good(weight, folder / weight.name):
                return "already there"
            if constants.HF_HUB_OFFLINE:
                raise InputError(
                    f"'{weight.name}' is to be fetched, but HF_HUB_OFFLINE says to stay off the network; unset it."
                )
            return _from_any_source(weight, folder)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"The folder '{folder}' cannot be used ({error.strerror}); choose another one.") from None
        full = error.errno in _DISK_FULL
        reason = "there is no space left for it" if full else error.strerror or str(error)
        raise OutputError(f"'{weight.name}' could not be written into '{folder}': {reason}.") from None


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process holds the lock, and hold it; its file goes away with the last."""
    from filelock import FileLock

    with FileLock(lock):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows keeps a file that is open
                lock.unlink()


def _from_any_source(weight: Weight, folder: Path) -> str:
    reasons: list[str] = []
    for source, offer in _offers(weight, reasons):
        try:
            part = folder / f".{weight.name}.{offer.tag or 'new'}.part"
            _load(offer, part)
            sha256 = _check(weight, offer, part)
            _put(part, folder / weight.name, sha256)
        except _NotHad as error:
            reasons.append(f"{source}: {error}")
            continue
        if weight.sha256 and sha256 != weight.sha256:
            differs = f"its sha256 is {sha256}, expected was {weight.sha256}"
            warn_once(f"'{weight.name}' was fetched, though it is another file than expected: {differs}.")
        if offer.sha256:
            return "sha256 as the hub says"
        return "sha256 as in the table" if weight.sha256 == sha256 else "no sha256 is published, contents as expected"
    raise NotFetched(f"'{weight.name}' could not be fetched ({'; '.join(reasons)})")


def _offers(weight: Weight, reasons: list[str]) -> Iterator[tuple[Source, _Offer]]:
    """Give what the sources offer, another file than the table's after all that may be it; note why others do not."""
    others = []
    for source in weight.published:
        try:
            offer = _ask(source)
        except _NotHad as error:
            reasons.append(f"{source}: {error}")
            continue
        if weight.sha256 and offer.sha256 and offer.sha256 != weight.sha256:
            others.append((source, offer))
        else:
            yield source, offer
    yield from others


def check_endpoint() -> None:
    """Raise InputError where HF_ENDPOINT is no address."""
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


def _ask(source: Source) -> _Offer:
    """The hub's own word on its file."""
    if source.github:
        return _Offer(source.url, False, None, None, None)
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(source.repository, source.path)
    try:
        said = get_hf_file_metadata(url)
    except Exception as error:  # the HTTP library's errors have no common class over the hub library's versions
        raise _NotHad(_reason(error, url)) from None
    sha256 = said.etag if said.etag and re.fullmatch(r"[0-9a-f]{64}", said.etag) else None
    tag = re.sub(r"[^\w-]", "", said.etag or "")[:16] if said.size else None
    return _Offer(url, True, tag or None, said.size, sha256)


def _load(offer: _Offer, part: Path) -> None:
    """Load into the part, going on where it ends, as long as every attempt brings something."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    own = build_hf_headers() if offer.on_hub else {}  # a token is the hub's business alone
    headers = {**own, "Accept-Encoding": "identity"}  # bytes as they are: a range counts in them
    if not offer.tag or (part.exists() and part.stat().st_size > (offer.bytes or 0)):
        part.unlink(missing_ok=True)
    while True:
        have = part.stat().st_size if part.exists() else 0
        if offer.bytes and shutil.disk_usage(part.parent).free < offer.bytes - have:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            with part.open("ab") as file:
                http_get(offer.url, file, resume_size=have, headers=headers, expected_size=offer.bytes)
            return
        except KeyboardInterrupt:
            _kept(offer, part)
            raise
        except Exception as error:  # of many libraries: those of the network have no error number, the disk's have
            if isinstance(error, OSError) and error.errno and not isinstance(error, (ConnectionError, TimeoutError)):
                part.unlink(missing_ok=True)
                raise
            got = part.stat().st_size
            if offer.bytes and got > offer.bytes:  # sent from the start again, which not every version sees
                part.unlink()
                raise _NotHad(f"more than the {offer.bytes:,} bytes that were announced arrived") from None
            if got <= have or not offer.tag:
                raise _NotHad(_reason(error, offer.url) + _kept(offer, part)) from None


def _kept(offer: _Offer, part: Path) -> str:
    """Keep the part if a later call can go on from its end."""
    size = part.stat().st_size
    if size and offer.tag:
        return f"; the first {size:,} bytes are kept, the same command goes on from there"
    part.unlink()
    return ""


def _check(weight: Weight, offer: _Offer, part: Path) -> str:
    """Return the sha256 of what arrived, or remove what is not the file and say why."""
    size, wanted, sha256 = part.stat().st_size, offer.bytes, sha256_of(part)
    try:
        if wanted is not None and size != wanted:
            raise _NotHad(f"{size:,} bytes arrived, wanted {wanted:,}; they are thrown away")
        if offer.sha256 and sha256 != offer.sha256:
            raise _NotHad("wrong bytes arrived (sha256); they are thrown away")
        check_contents(weight, part, blank=True)
    except InputError as error:
        part.unlink()
        raise _NotHad(str(error).rstrip(".").replace(str(part), weight.name)) from None
    except _NotHad:
        part.unlink()
        raise
    return sha256


def _put(part: Path, target: Path, sha256: str) -> None:
    """Note the sha256, then let the file appear whole under its name."""
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    note = part.with_name(f".{target.name}.note.part")
    note.write_text(f"{sha256}  {target.name}\n", "ascii")
    note.replace(note_path(target))
    part.replace(target)
    for older in target.parent.glob(f".{target.name}.*.part"):
        older.unlink()


def _reason(error: Exception, url: str) -> str:
    """One clause for whatever the network libraries raise."""
    from huggingface_hub.errors import HfHubHTTPError

    host = urlsplit(url).netloc
    if isinstance(error, HfHubHTTPError):
        return f"{host} answers {error.response.status_code}"
    words = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return f"{host} cannot be reached ({words[:120]})"
