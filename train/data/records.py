"""Record prepared films: one JSON file each, a report of what was dropped, a manifest with sha256."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from kdtalker.core.files import write_atomically
from kdtalker.core.rates import FRAME_RATE_HZ
from train.data.shards import Shard, shard_paths

REPORT_FILE, MANIFEST_FILE = "report.json", "manifest.json"
MIN_CORPUS_TO_SYNC_S = 300.0  # on less film the lag regression overfits every clip


@dataclass(frozen=True)
class Drop:
    """Describe a dropped part of a film: reason, seconds, and details of the error where there are any."""

    film: str
    reason: str
    seconds: float
    detail: str = ""


@dataclass(frozen=True)
class Record:
    """Record a tracked film: size and time of the file, to detect changes; its shards and dropped parts."""

    film: str
    size_bytes: int
    modified_ns: int
    speaker: str
    split: str
    shards: list[str]
    drops: list[Drop]

    @staticmethod
    def load(path: Path) -> Record:
        """Read a record from its JSON file."""
        values = json.loads(path.read_text("utf-8"))
        return Record(**(values | {"drops": [Drop(**drop) for drop in values["drops"]]}))

    def save(self, path: Path) -> None:
        """Write the record atomically as JSON."""
        content = json.dumps(asdict(self), indent=1).encode()
        write_atomically(path, lambda file: file.write(content))


def write_report(out: Path, unsynced: list[Drop]) -> str:
    """Write report.json over all films of the folder; return the same as a table to print."""
    records = [Record.load(path) for path in sorted((out / "films").glob("*.json"))]
    tracked_s = sum(len(np.load(path)["landmarks"]) for path in shard_paths(out)) / FRAME_RATE_HZ
    synced_s = tracked_s - sum(drop.seconds for drop in unsynced)
    reasons: dict[str, dict[str, Drop]] = {}
    for drop in [drop for record in records for drop in record.drops] + unsynced:
        films = reasons.setdefault(drop.reason, {})
        before = films[drop.film].seconds if drop.film in films else 0.0
        films[drop.film] = replace(drop, seconds=round(before + drop.seconds, 2))
    dropped = {
        reason: {"seconds": round(sum(drop.seconds for drop in films.values()), 2), "films": films}
        for reason, films in sorted(reasons.items())
    }
    report = {"films": len(records), "kept_s": round(tracked_s, 2), "in_sync_s": round(synced_s, 2), "dropped": dropped}
    content = json.dumps(report, indent=1, default=_as_json).encode()
    write_atomically(out / REPORT_FILE, lambda file: file.write(content))
    lines = [f"{tracked_s:9.1f} s  kept of {len(records)} films, {synced_s:.1f} s of them in sync with their sound"]
    if tracked_s < MIN_CORPUS_TO_SYNC_S:
        lines.append(
            f"            {MIN_CORPUS_TO_SYNC_S:.0f} s or more are wanted to tell what is in sync; "
            "with less it is a guess"
        )
    for reason, films in sorted(reasons.items()):
        lines.append(f"{sum(drop.seconds for drop in films.values()):9.1f} s  {reason}: {', '.join(sorted(films))}")
    return "\n".join(lines)


def _as_json(drop: Drop) -> dict[str, float | str]:
    return {"seconds": drop.seconds} | ({"detail": drop.detail} if drop.detail else {})


def write_manifest(out: Path) -> None:
    """Write manifest.json: every film with its shards, their sha256, and the dropped parts. The content depends on the
    films alone, not on machine or time."""
    films = {}
    for record in (Record.load(path) for path in sorted((out / "films").glob("*.json"))):
        drops = [{"reason": drop.reason, "seconds": drop.seconds, "detail": drop.detail} for drop in record.drops]
        shards = {name: _describe_shard(out / f"{name}.npz") for name in record.shards}
        films[record.film] = {"speaker": record.speaker, "split": record.split, "shards": shards, "dropped": drops}
    counts = {
        "films": len(films),
        "films without shards": sum(not film["shards"] for film in films.values()),
        "shards": sum(len(film["shards"]) for film in films.values()),
    }
    content = json.dumps({"counts": counts, "films": films}, indent=1).encode()
    write_atomically(out / MANIFEST_FILE, lambda file: file.write(content))


def _describe_shard(path: Path) -> dict[str, object]:
    shard = Shard.load(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"seconds": len(shard.landmarks) / FRAME_RATE_HZ, "in sync": shard.synced, "sha256": digest}
