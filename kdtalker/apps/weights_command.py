"""Manage weight files: `kdtalker weights list|get|verify|convert`."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from kdtalker.apps.arguments import Parser
from kdtalker.core.errors import InputError, OutputError
from kdtalker.core.files import is_folder
from kdtalker.weights.files import describe_search_path, download_folder, is_valid, verify
from kdtalker.weights.find import find, locate
from kdtalker.weights.hub import DownloadError
from kdtalker.weights.spec import Weight
from kdtalker.weights.table import LIVEPORTRAIT, TABLE, find_row


def run(arguments: Sequence[str]) -> str:
    """Run `kdtalker weights` with these arguments; return the lines to print."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.action == "convert":
        return _convert(asked.names, asked.weights)
    named = tuple(map(find_row, dict.fromkeys(asked.names)))
    if asked.action == "get":
        return _fetch_all(named or tuple(map(find_row, LIVEPORTRAIT)), asked.weights)
    chosen = named or TABLE
    if asked.weights is not None and not is_folder(asked.weights):
        raise InputError(f"There is no folder '{asked.weights}'.")
    if asked.action == "list":
        return "\n".join(_describe(weight, asked.weights) for weight in chosen)
    return _verify_all(chosen, asked.weights, named=bool(named))


def _parser() -> Parser:
    order = "--weights, $KDTALKER_WEIGHTS, ./weights, ~/.cache/kdtalker"
    parser = Parser(
        prog="kdtalker weights",
        description="List, fetch and check weight files: of the package, and published by others.",
        epilog=f"Published files are searched in {order}, in this order, and put into the first of these that is given "
        "or exists. HF_ENDPOINT names a mirror of the hub; HF_HUB_OFFLINE=1 forbids the network.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("action", choices=("list", "get", "verify", "convert"),
        help="list the files, fetch the missing ones, check them, or convert a .pth that was refused")  # fmt: skip
    add("names", nargs="*", metavar="NAME",
        help="which files (default: all; for get: those of --engine liveportrait); for convert: FILE.pth and "
        "OUT.safetensors, which without a name is put beside it")  # fmt: skip
    add("--weights", type=Path, metavar="FOLDER", help="search this folder first; for get: put the files here")
    return parser


def _fetch_all(chosen: Sequence[Weight], folder: Path | None) -> str:
    """Fetch all files that can be had; return a line for each. Raises OutputError that lists those that cannot."""
    lines, lacking = [], []
    for weight in chosen:
        try:
            lines.append(_fetch_missing(weight, folder))
        except DownloadError as error:
            url, place = weight.published[-1].url, download_folder(folder).absolute()
            lacking.append(f"{error}; load {url} by hand and put it into '{place}' as '{weight.name}'")
    if lacking:
        others = f", the other {len(lines)} are there" if lines else ""
        raise OutputError(f"{len(lacking)} of {len(chosen)} files are lacking{others}: {'; '.join(lacking)}.")
    return "\n".join(lines)


def _convert(names: Sequence[str], folder: Path | None) -> str:
    """Convert a .pth to .safetensors; return a line about it."""
    if folder is not None or len(names) not in (1, 2):
        raise InputError(
            "`kdtalker weights convert` takes FILE.pth, the name to write (.safetensors) if any, and no more."
        )
    from kdtalker.weights.convert import convert_pth

    return convert_pth(*map(Path, names))


def _fetch_missing(weight: Weight, folder: Path | None) -> str:
    """Fetch one file if it is missing (in the folder, if one is given); return a line about it."""
    if not weight.published:
        return f"{weight.name}: came with the package: {find(weight.name)}"
    path = locate(weight) if folder is None else folder / weight.file
    if path is not None and is_valid(weight, path):
        return f"{weight.name}: already there: {path}"
    path = download_folder(folder) / weight.file
    return f"{weight.name}: {_fetch(weight, path.parent)}; licence: {weight.licence}: {path}"


def _fetch(weight: Weight, folder: Path) -> str:
    """Download one file into a folder; return a line about it."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # is read on import: no telemetry is sent
    from kdtalker.weights.hub import check_endpoint, fetch

    check_endpoint()
    from huggingface_hub.utils.logging import set_verbosity

    set_verbosity(logging.ERROR)  # errors are reported once, by this program
    try:
        return fetch(weight, folder)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on from where it stopped.") from None


def _describe(weight: Weight, folder: Path | None) -> str:
    """Describe one file: size, place, purpose, licence, sha256 and sources."""
    path = locate(weight, folder)
    size = f"{weight.bytes:,} bytes" if weight.bytes else "size unknown"
    where = f"in {path.parent}" if path else "not here"
    sha256 = weight.sha256 or "unknown until it is fetched; then the hub's word is checked and noted"
    if weight.sha256 and weight.published:
        sha256 += " is expected, never checked against the published file"
    if not weight.sha256 and all(source.github for source in weight.published):
        sha256 = "unknown; its contents are checked"
    sources = [f"    from {source.url}" for source in weight.published]
    return "\n".join(
        (
            f"{weight.name}: {size}, {where}",
            f"    {weight.purpose} ({weight.source}; licence: {weight.licence})",
            f"    sha256 {sha256}",
            *sources,
        )
    )


def _verify_all(chosen: Sequence[Weight], folder: Path | None, *, named: bool) -> str:
    """Verify files; return a line for each. Raises InputError for damaged files and, if named, missing ones."""
    lines, wrong = [], []
    for weight in chosen:
        path = locate(weight, folder)
        if path is None:
            lines.append(f"{weight.name}: not here")
            if named:
                wrong.append(
                    f"there is no '{weight.name}' in {describe_search_path(folder)}, "
                    f"`{weight.command(folder)}` fetches it"
                )
            continue
        try:
            lines.append(f"{weight.name}: {verify(weight, path, folder)}: {path}")
        except InputError as error:
            wrong.append(str(error).rstrip("."))
    if wrong:
        raise InputError(f"{len(wrong)} of {len(chosen)} weight files failed: {'; '.join(wrong)}.")
    return "\n".join(lines)
