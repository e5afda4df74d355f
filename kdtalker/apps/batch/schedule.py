"""Decide which row a worker makes next: the longest first, each portrait in one worker where there are enough."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable

from kdtalker.apps.batch.rows import FilmRow
from kdtalker.core.rates import FRAME_RATE_HZ

WORTH_ENCODING_FRAMES = 10 * FRAME_RATE_HZ  # of one portrait that wait, for a second worker to encode it too


class _Group:
    """Hold the rows of one portrait that wait, the longest first, and the workers that have encoded it."""

    def __init__(self) -> None:
        self.rows: deque[FilmRow] = deque()
        self.workers: set[int] = set()

    @property
    def frames(self) -> int:
        return sum(row.frames for row in self.rows)


class Schedule:
    """Hold the rows that wait.

    A worker stays with its portrait while rows of it wait. Then it takes the portrait that no worker has and that most
    is to be made of, and at the end helps where enough is left to be worth encoding a portrait again.
    """

    def __init__(self, rows: Iterable[FilmRow]) -> None:
        groups: defaultdict[str, _Group] = defaultdict(_Group)
        for row in sorted(rows, key=lambda row: (-row.frames, row.number)):
            groups[row.portrait].rows.append(row)
        self._groups = dict(groups)

    def take(self, worker: int) -> FilmRow | None:
        """Take the next row of a worker; None where nothing waits that is for it."""
        waiting = [group for group in self._groups.values() if group.rows]
        own = [group for group in waiting if worker in group.workers]
        free = [group for group in waiting if not group.workers]
        large = [group for group in waiting if group.frames >= WORTH_ENCODING_FRAMES]
        group = max(own or free or large, key=lambda group: group.frames, default=None)
        if group is None:
            return None
        for other in self._groups.values():
            other.workers.discard(worker)
        group.workers.add(worker)
        return group.rows.popleft()

    def put_back(self, row: FilmRow) -> None:
        """Let a row wait again, behind the others of its portrait."""
        self._groups[row.portrait].rows.append(row)

    def release(self, worker: int) -> None:
        """Forget what a worker has encoded: it has ended."""
        for group in self._groups.values():
            group.workers.discard(worker)

    def __len__(self) -> int:
        return sum(len(group.rows) for group in self._groups.values())
