"""What the command line says and where: progress, notes, errors nobody expected, streams that are closed or full."""

import os
import pty
import re
import subprocess
import sys

import pytest
import toy
from test_cli import ENVIRONMENT, REAL, ROOT, TOY, call, film, folder, read_back, write_wav  # noqa: F401 (a fixture)

CRASH = [sys.executable, str(ROOT / "tests" / "toy.py"), "crash"]


def test_progress_begins_at_once_and_comes_every_tenth_where_stderr_is_no_terminal(folder):  # noqa: F811
    write_wav(folder / "voice.wav", toy.sound(8.0))
    done = call(folder, *film())
    lines = done.stderr.splitlines()
    assert lines[0].startswith("reading the portrait") and "loading the networks" in lines
    assert "making 200 frames, 8.0 s of film" in lines
    shares = [int(line.split("%")[0]) for line in lines if re.match(r" *\d+% ", line)]
    assert shares == list(range(10, 101, 10))


def test_quiet_says_nothing_but_the_last_line(folder):  # noqa: F811
    done = call(folder, *film(), "--quiet")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("25 frames")


def test_a_terminal_that_does_not_tell_its_width_shows_a_bar(folder):  # noqa: F811
    ours, theirs = pty.openpty()
    subprocess.run([*TOY, *film()], cwd=folder, env=ENVIRONMENT, stderr=theirs, stdout=subprocess.DEVNULL, check=True)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 1 << 16)
        except OSError:
            break
    os.close(ours)
    assert b"reading the portrait" in shown and b"/25" in shown


@pytest.mark.parametrize("sink", ["closed", "/dev/full"])
@pytest.mark.parametrize(("arguments", "code"), [(film(), 0), (film("none.png"), 2)], ids=["good", "bad"])
def test_the_exit_code_does_not_depend_on_stderr(folder, sink, arguments, code):  # noqa: F811
    redirected = "2>&-" if sink == "closed" else f"2>{sink}"
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirected}', "sh", *TOY, *arguments], cwd=folder, env=ENVIRONMENT, check=False,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert done.returncode == code


@pytest.mark.parametrize(
    ("program", "arguments", "redirected", "code"),
    [
        (TOY, film(), ">&-", 0),
        (TOY, film(), ">/dev/full", 0),
        (TOY, film(), "<&- >&- 2>&-", 0),
        (REAL, ("--help",), ">/dev/full", 1),
        (REAL, ("--help",), ">&-", 0),
        (REAL, ("weights", "list"), ">/dev/full", 1),
    ],
)
def test_a_film_counts_even_where_nobody_can_be_told_of_it(folder, program, arguments, redirected, code):  # noqa: F811
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirected}', "sh", *program, *arguments], cwd=folder, env=ENVIRONMENT, check=False,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert done.returncode == code and "Traceback" not in done.stderr
    if program is TOY:
        assert read_back(folder / "film.mp4")[0] == 25


def test_an_error_nobody_expected_is_one_sentence_with_a_traceback_on_request(folder):  # noqa: F811
    done = call(folder, *film(), program=CRASH)
    (sentence,) = toy.sentences(done.stderr)
    assert done.returncode == 1 and "ZeroDivisionError" in sentence and "KDTALKER_DEBUG=1" in sentence
    told = call(folder, *film(), program=CRASH, env={**ENVIRONMENT, "KDTALKER_DEBUG": "1"})
    assert "Traceback" in told.stderr and "crashing" in told.stderr and told.returncode == 1


def test_a_missing_package_is_named(folder):  # noqa: F811
    code = "import sys; sys.modules['numpy'] = None; from kdtalker.apps.cli import main; sys.exit(main(['--help']))"
    done = call(folder, program=[sys.executable, "-c", code])
    assert done.returncode == 1 and "'numpy' is not installed" in done.stderr and done.stderr.count("\n") == 1


def test_voices_are_listed_and_near_names_suggested(folder):  # noqa: F811
    pytest.importorskip("espeakng_loader")
    listed = call(folder, "--voices", program=REAL)
    assert listed.returncode == 0 and re.search(r"^de +German", listed.stdout, re.MULTILINE)
    wrong = call(folder, *film()[:2], "--text", "Hello", "--voice", "en-su", *film()[4:])
    assert wrong.returncode == 2 and "Did you mean 'en-us'?" in wrong.stderr and "--voices" in wrong.stderr
    assert len(wrong.stderr) < 300


def test_flags_that_are_nearly_right_are_suggested(folder):  # noqa: F811
    done = call(folder, *film(), "--expresion", "1")
    assert done.returncode == 2 and "Did you mean '--expression'?" in done.stderr


def test_numbers_are_asked_for_in_plain_words(folder):  # noqa: F811
    for flag, value, told in (("--seed", "one", "'one' is not a whole number"), ("--head", "x", "'x' is not a number")):
        assert told in call(folder, *film(), flag, value).stderr
    for box in ("nan,nan,50,50", "0,0,inf,inf"):
        done = call(folder, *film(), "--box", box)
        assert done.returncode == 2 and "finite" in done.stderr
