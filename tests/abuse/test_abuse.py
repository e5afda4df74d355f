"""The fast share of the table, row by row; `make abuse` runs all of it."""

import sys
from dataclasses import replace

import pytest

from abuse.case import FILM, Case
from abuse.harness import benches
from abuse.places import file
from abuse.table import CASES

FAST = [case for case in CASES if case.is_fast]
PROMISES = {f"V{number}" for number in range(1, 21)}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="signals, limits and devices as Linux has them"),
]


@pytest.fixture(scope="module")
def bench():
    with benches(1) as (bench,):
        yield bench


@pytest.mark.parametrize("case", FAST, ids=[case.id for case in FAST])
def test_every_run_ends_as_its_row_says(bench, case):
    outcome = bench.run(case)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert not outcome.faults, outcome.line()


def test_every_promise_and_every_group_has_a_fast_row():
    assert len(CASES) >= 330 and len({case.id for case in CASES}) == len(CASES)
    assert {case.group for case in FAST} == {case.group for case in CASES}
    assert {case.finding for case in FAST} - {""} == PROMISES


REFUSED = Case("bench", "refused", (*FILM.split(), "--fps", "30"), 2, "--fps", before=(file("old.txt"),))
MADE = Case("bench", "made", tuple(FILM.split()), 0, "25 frames", frames=25)


@pytest.mark.parametrize(
    ("case", "kinds"),
    [
        (REFUSED, set()),
        (MADE, set()),
        (replace(REFUSED, code=1), {"code"}),
        (replace(REFUSED, told="--gps"), {"words"}),
        (replace(REFUSED, within_s=1e-6), {"slow"}),
        (replace(MADE, made=()), {"left"}),
        (replace(MADE, made=("film.mp4", "other.mp4")), {"words"}),
        (replace(MADE, frames=24), {"words"}),
        (replace(MADE, size=(1, 1)), {"words"}),
        (replace(REFUSED, gone=("old.*",)), {"left"}),
    ],
)
def test_the_bench_sees_what_is_wrong(bench, case, kinds):
    assert {kind for kind, _ in bench.run(case).faults} == kinds


@pytest.mark.parametrize(
    ("python", "kinds"),
    [
        ("import sys; sys.exit('kdtalker: no')", {"code"}),
        ("import sys; print('kdtalker: no', file=sys.stderr); sys.exit(2)", set()),
        ("import sys; print('kdtalker: note: odd\\nkdtalker: no', file=sys.stderr); sys.exit(2)", set()),
        ("import sys; print('kdtalker: no\\nkdtalker: no', file=sys.stderr); sys.exit(2)", {"words"}),
        ("import sys; print('a.py:3: UserWarning: x\\nkdtalker: no', file=sys.stderr); sys.exit(2)", {"words"}),
        ("import sys; print('kdtalker: no', file=sys.stderr); print('no'); sys.exit(2)", {"words"}),
        ("1 / 0", {"traceback", "code", "words"}),
        ("import os, sys; os.mkdir(os.environ['TMPDIR'] + '/a'); print('kdtalker: no', file=sys.stderr); sys.exit(2)",
         {"left"}),
        ("import os, sys; os.remove('old.txt'); print('kdtalker: no', file=sys.stderr); sys.exit(2)", {"left"}),
        ("import os, sys; open('old.txt', 'w'); print('kdtalker: no', file=sys.stderr); sys.exit(2)", {"left"}),
        ("import os, sys, subprocess; subprocess.Popen(['sleep', '60']); print('kdtalker: no', file=sys.stderr);"
         "sys.exit(2)", {"left"}),
    ],
)  # fmt: skip
def test_the_bench_sees_what_a_program_does_wrong(bench, monkeypatch, tmp_path, python, kinds):
    (tmp_path / "program.py").write_text(python)
    monkeypatch.setattr("abuse.harness.PROGRAMS", {"program": tmp_path / "program.py"})
    outcome = bench.run(replace(REFUSED, program="program", told="no"))
    assert {kind for kind, _ in outcome.faults} == kinds, outcome.line()
