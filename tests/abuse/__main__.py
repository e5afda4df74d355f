"""`python -m abuse [WORD...]`: run all rows (or those with these words in their names) and print one table."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from contextlib import suppress
from queue import Empty, SimpleQueue

from abuse.case import LONGEST_S, PROCESS, REAL, TOY, TOY_PROCESS, Case
from abuse.harness import Bench, benches
from abuse.judge import KINDS, Outcome
from abuse.table import CASES

WORKERS = 2


def main(words: list[str]) -> int:
    chosen = [case for case in CASES if all(word in f"{case.id} [{case.finding}]" for word in words)]
    outcomes = run(chosen)
    failed = [outcome for outcome in outcomes if outcome.faults]
    for outcome in failed:
        print(outcome.line())
    for outcome in outcomes:
        if outcome.skipped:
            print(f"{outcome.case.id}: skipped, {outcome.skipped}")
    print_table(outcomes)
    return 1 if failed else 0


def run(cases: list[Case]) -> list[Outcome]:
    """By two workers, what takes longest first; outcomes in the order of the table."""
    waiting: SimpleQueue[Case] = SimpleQueue()
    programs = (PROCESS, TOY_PROCESS, REAL, TOY)
    for case in sorted(cases, key=lambda case: (case.within_s <= LONGEST_S, programs.index(case.program))):
        waiting.put(case)
    done: dict[str, Outcome] = {}
    with benches(WORKERS) as all_benches:
        workers = [threading.Thread(target=_work, args=(bench, waiting, done)) for bench in all_benches]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return [done[case.id] for case in cases]


def _work(bench: Bench, waiting: SimpleQueue[Case], done: dict[str, Outcome]) -> None:
    with suppress(Empty):
        while True:
            case = waiting.get_nowait()
            done[case.id] = bench.run(case)
            if sys.stderr.isatty():
                print(f"\r{len(done)} runs", end="", file=sys.stderr)


def print_table(outcomes: list[Outcome]) -> None:
    groups = list(dict.fromkeys(outcome.case.group for outcome in outcomes))
    names = ("runs", "traceback", "code", "words", "left", "slow", "skipped", "slowest")
    print(f"{'group':<20}" + "".join(f"{name:>10}" for name in names))
    for group in [*groups, "all"]:
        own = [outcome for outcome in outcomes if group in (outcome.case.group, "all")]
        tried = [outcome for outcome in own if not outcome.skipped]
        count = Counter(kind for outcome in tried for kind in {kind for kind, _ in outcome.faults})
        numbers = [len(tried), *(count[kind] for kind in KINDS), len(own) - len(tried)]
        slowest = max((outcome.seconds for outcome in tried), default=0.0)
        print(f"{group:<20}" + "".join(f"{number:>10}" for number in numbers) + f"{slowest:>8.1f} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
