"""The real command line over the toy engine: what works, and how everything that cannot work ends."""

import ctypes
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import wave
from functools import cache
from pathlib import Path

import av
import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import test_template
import toy

from kdtalker import Motion, __version__
from kdtalker.apps.driving_input import IN_MEMORY_S, open_driving_input
from kdtalker.apps.job import parse
from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.core.rates import frame_count
from kdtalker.media.sound import read_sound
from kdtalker.media.video import read_video

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOY = [sys.executable, str(ROOT / "tests" / "toy.py")]
REAL = [sys.executable, str(ROOT / "inference.py")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
OLD = b"the film that was there before"


def write_wav(path, samples, rate_hz=16_000):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate_hz, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def write_film(path, frames, *arguments):
    """A film from pictures, by ffmpeg itself; `arguments` may add a sound."""
    height, width = frames[0].shape[:2]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-r", "25"]
    command += ["-s", f"{width}x{height}", "-i", "-", *arguments, "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, input=b"".join(frame.tobytes() for frame in frames), check=True)


def driving_frames(count=20):
    return [np.full((80, 96, 3), 100 + 3 * index, np.uint8) for index in range(count)]


@pytest.fixture
def folder(tmp_path):
    """Good inputs and a film of yore, which a failing run must leave alone."""
    cv2.imwrite(str(tmp_path / "face.png"), toy.picture()[..., ::-1])
    write_wav(tmp_path / "voice.wav", toy.sound(1.0))
    (tmp_path / "film.mp4").write_bytes(OLD)
    return tmp_path


def call(folder, *arguments, program=None, **how):
    """Run a program in a process of its own; the toy, asked for nothing else, in a fork of one that has imported it."""
    words = list(map(str, arguments))
    if program is None and not how and sys.platform == "linux":
        return fork(folder, words)
    how = {"env": ENVIRONMENT, "timeout": 120, **how}
    return subprocess.run([*(program or TOY), *words], check=False, cwd=folder, capture_output=True, text=True, **how)


@cache
def fork_server():
    """It ends with this process, whose pipe it reads."""
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", "abuse.forks", "toy"], env=environment, **pipes)


def fork(folder, words, env=ENVIRONMENT):
    with tempfile.TemporaryDirectory() as aside:
        streams = [Path(aside) / name for name in ("stdout", "stderr")]
        for path in streams:
            path.touch()
        ask = {"engine": "toy", "words": words, "cwd": str(folder), "command": None, "cwd_gone": False,
               "env": env, "umask": 0o022, "limits": {}, "user": "", "signals": [], "timeout_s": 120,
               "streams": ["/dev/null", *map(str, streams)]}  # fmt: skip
        server = fork_server()
        server.stdin.write(json.dumps(ask) + "\n")
        server.stdin.flush()
        status = json.loads(server.stdout.readline())["status"]
        return subprocess.CompletedProcess(words, status, *(path.read_text("utf-8") for path in streams))


def film(picture="face.png", sound="voice.wav", output="film.mp4"):
    return ("--image", picture, "--audio", sound, "--output", output)


def snapshot(folder):
    files = {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}
    return {str(path): hashlib.sha256(content).hexdigest() for path, content in files.items()}


def read_back(path):
    """Frames, size and seconds of sound, as PyAV sees them."""
    with av.open(str(path)) as container:
        frames = sum(1 for _ in container.decode(video=0))
        size = container.streams.video[0].width, container.streams.video[0].height
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return frames, size, None
        samples = sum(frame.samples for frame in container.decode(audio=0))
        return frames, size, samples / container.streams.audio[0].rate


def assert_fails(folder, arguments, code, told, **how):
    before = snapshot(folder)
    done = call(folder, *arguments, **how)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert len(toy.sentences(done.stderr)) == 1 and "Traceback" not in done.stderr, done.stderr
    assert re.search(told, done.stderr), done.stderr
    assert snapshot(folder) == before


# --- what works -----------------------------------------------------------------------------------------------------


def test_a_film_is_made_and_one_line_tells_of_it(folder):
    done = call(folder, *film(), program=TOY)
    assert (done.returncode, toy.sentences(done.stderr)) == (0, [])
    assert re.fullmatch(r"25 frames, 1\.00 s .* x real time\): film\.mp4\n", done.stdout)
    frames, size, sound_s = read_back(folder / "film.mp4")
    assert (frames, size) == (25, (96, 80)) and abs(sound_s - 1) <= 0.04
    assert sorted(path.name for path in folder.iterdir()) == ["face.png", "film.mp4", "voice.wav"]


@pytest.mark.parametrize("samples", [1, 639, 640, 641])
def test_short_sounds_make_short_films(folder, samples):
    write_wav(folder / "voice.wav", toy.sound(1.0)[:samples])
    assert call(folder, *film()).returncode == 0
    frames, _, sound_s = read_back(folder / "film.mp4")
    assert frames == -(-samples // 640) and abs(sound_s - samples / 16_000) <= 0.04


def test_silence_makes_a_film(folder):
    write_wav(folder / "voice.wav", np.zeros(16_000))
    assert call(folder, *film()).returncode == 0
    assert read_back(folder / "film.mp4")[0] == 25


@pytest.mark.parametrize("name", ["with space", 'it\'s "quoted"', "肖像 портрет", "-dash", "%d", "semi;colon&and"])
def test_paths_may_hold_anything(folder, name):
    for old, new in (("face.png", f"{name}.png"), ("voice.wav", f"{name}.wav")):
        (folder / old).rename(folder / new)
    where = folder / name
    where.mkdir()
    done = call(folder, *film(folder / f"{name}.png", folder / f"{name}.wav", where / f"{name}.mp4"))
    assert done.returncode == 0, done.stderr
    assert read_back(where / f"{name}.mp4")[0] == 25


def test_a_film_drives_the_portrait_with_its_motion_and_its_sound(folder):
    write_film(folder / "driving.mp4", driving_frames(), "-i", str(folder / "voice.wav"), "-shortest")
    done = call(folder, "--image", "face.png", "--driving", "driving.mp4", "--output", "film.mp4")
    assert done.returncode == 0, done.stderr
    frames, _, sound_s = read_back(folder / "film.mp4")
    assert frames == 20 and abs(sound_s - 0.8) <= 0.04


def test_a_silent_film_drives_too(folder):
    write_film(folder / "driving.mp4", driving_frames())
    assert call(folder, "--image", "face.png", "--driving", "driving.mp4", "--output", "film.mp4").returncode == 0
    assert read_back(folder / "film.mp4") == (20, (96, 80), None)


def test_a_saved_motion_makes_the_same_film_again(folder):
    done = call(folder, *film(), "--save-motion", "said.npz", "--seed", "4", "--expression", "1.2")
    assert done.returncode == 0, done.stderr
    assert len(Motion.load(folder / "said.npz")) == 25
    spoken = (folder / "film.mp4").read_bytes()
    again = ("--image", "face.png", "--motion", "said.npz", "--audio", "voice.wav", "--output", "film.mp4")
    assert call(folder, *again).returncode == 0
    assert (folder / "film.mp4").read_bytes() == spoken


def test_a_motion_without_sound_makes_a_silent_film(folder):
    Motion.from_vector(np.ones((12, MOTION_WIDTH), np.float32), "mesh").save(folder / "said.npz")
    assert call(folder, "--image", "face.png", "--motion", "said.npz", "--output", "film.mp4").returncode == 0
    assert read_back(folder / "film.mp4") == (12, (96, 80), None)


def test_crop_films_the_face_alone(folder):
    assert call(folder, *film(), "--crop").returncode == 0
    assert read_back(folder / "film.mp4")[1] == (toy.SIDE_PX, toy.SIDE_PX)


def test_a_part_of_the_sound_makes_a_film_of_that_part(folder):
    done = call(folder, *film(), "--start", "0.3", "--duration", "0.42", "--save-motion", "part.npz")
    assert done.returncode == 0, done.stderr
    frames, _, sound_s = read_back(folder / "film.mp4")
    assert frames == 11 and abs(sound_s - 0.42) <= 0.04
    samples = toy.sound(1.0)[4800 : 4800 + 6720]
    write_wav(folder / "cut.wav", samples)
    assert call(folder, *film(sound="cut.wav", output="cut.mp4"), "--save-motion", "cut.npz").returncode == 0
    part, cut = (Motion.load(folder / name).vector() for name in ("part.npz", "cut.npz"))
    np.testing.assert_allclose(part, cut, atol=1e-3)


def test_the_head_follows_a_film_while_the_face_speaks(folder):
    write_film(folder / "head.mp4", driving_frames(10))
    done = call(folder, *film(), "--pose-from", "head.mp4", "--save-motion", "said.npz")
    assert done.returncode == 0, done.stderr
    yaw = Motion.load(folder / "said.npz").pose[:, 0]
    assert len(yaw) == 25 and (np.diff(yaw[:9]) > 0.1).all() and (np.diff(yaw[9:18]) < -0.1).all()
    assert yaw[18] == pytest.approx(yaw[0], abs=0.1)


def test_another_background_is_behind_the_film(folder):
    assert call(folder, *film(output="plain.mp4")).returncode == 0
    assert call(folder, *film(), "--background", "#00ff00").returncode == 0
    first = (next(iter(read_video(folder / name))) for name in ("plain.mp4", "film.mp4"))
    plain, green = (frame.astype(int).mean((0, 1)) for frame in first)
    assert green[1] > plain[1] + 20 and green[0] < plain[0]


def test_nobody_needs_to_read_the_last_line(folder):
    reader, writer = os.pipe()
    os.close(reader)
    command = [*TOY, *film()]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, toy.sentences(done.stderr.decode())) == (0, [])
    assert read_back(folder / "film.mp4")[0] == 25


@pytest.mark.parametrize("program", [TOY, REAL])
def test_version_and_help_go_to_stdout(folder, program):
    assert call(folder, "--version", program=program).stdout == f"kdtalker {__version__}\n"
    helped = call(folder, "--help", program=program)
    assert helped.returncode == 0 and "--guidance 0..6" in helped.stdout


# --- what cannot work: exit 2 ---------------------------------------------------------------------------------------

GOOD = film()
INPUTS_2 = {
    "no such picture": (film("none.png"), "'none.png' cannot be opened"),
    "no such sound": (film(sound="none.wav"), "'none.wav' cannot be opened"),
    "picture is a folder": (film("sub"), "'sub' is not a file"),
    "sound is a folder": (film(sound="sub"), "'sub' is not a file"),
    "output is a folder": (film(output="sub"), "'sub' is a folder"),
    "output folder missing": (film(output="no/film.mp4"), "no folder 'no'"),
    "output is the picture": (film(output="face.png"), "overwritten"),
    "output is the sound by another name": (film(output="sub/../voice.wav"), "overwritten"),
    "picture is text": (film("text.png"), "text.png"),
    "picture is truncated": (film("cut.png"), "cut.png"),
    "picture is empty": (film("empty"), "empty"),
    "no face": (film("grey.png"), "[Nn]o face"),
    "face out of range": ((*GOOD, "--face", "3"), "3"),
    "face is not a number": ((*GOOD, "--face", "one"), "'one'"),
    "face is negative": ((*GOOD, "--face", "-1"), "-1"),
    "box of three": ((*GOOD, "--box", "1,2,3"), "'1,2,3'"),
    "box without width": ((*GOOD, "--box", "1,2,0,4"), "1,2,0,4"),
    "box and face": ((*GOOD, "--box", "1,2,3,4", "--face", "0"), "not allowed with"),
    "sound is text": (film(sound="text.png"), "text.png"),
    "sound is empty": (film(sound="empty"), "empty"),
    "sound of no length": (film(sound="nothing.wav"), "nothing.wav"),
    "film without sound": (film(sound="silent.mp4"), "silent.mp4"),
    "unknown option": ((*GOOD, "--fps", "30"), "--fps"),
    "shortened option": ((*GOOD, "--guid", "3"), "--guid"),
    "stray word": ((*GOOD, "more"), "more"),
    "value missing": ((*GOOD, "--seed"), "--seed"),
    "seed too small": ((*GOOD, "--seed", "-1"), "'seed' is -1"),
    "steps not whole": ((*GOOD, "--steps", "2.5"), "'2.5'"),
    "guidance not a number": ((*GOOD, "--guidance", "nan"), "'guidance' is nan"),
    "head out of range": ((*GOOD, "--head", "3"), "'head' is 3.0, wanted a number from 0 to 2"),
    "unknown emotion": ((*GOOD, "--emotion", "bored"), "--emotion.*'bored'.*surprised"),
    "start after the end": ((*GOOD, "--start", "9"), "'voice.wav' has no sound from 9 s on"),
    "start below 0": ((*GOOD, "--start", "-1"), "'start' is -1"),
    "no duration": ((*GOOD, "--duration", "0"), "'duration' is 0"),
    "start of a driving film": (
        ("--image", "face.png", "--output", "film.mp4", "--driving", "silent.mp4", "--start", "1"),
        "--start can only",
    ),
    "pose from no film": ((*GOOD, "--pose-from", "text.png"), "text.png"),
    "pose from nowhere": ((*GOOD, "--pose-from", "none.mp4"), "none.mp4"),
    "no colour": ((*GOOD, "--background", "greenish"), "'greenish' is neither a picture nor a colour"),
    "background is text": ((*GOOD, "--background", "text.png"), "text.png"),
    "crf out of range": ((*GOOD, "--crf", "52"), "'crf' is 52"),
    "nothing at all": ((), "--image"),
    "no output": (("--image", "face.png", "--audio", "voice.wav"), "--output"),
    "nothing that moves it": (("--image", "face.png", "--output", "film.mp4"), "--audio"),
    "sound and driving film": ((*GOOD, "--driving", "silent.mp4"), "--driving"),
    "motion and driving film": (
        ("--image", "face.png", "--output", "film.mp4", "--motion", "said.npz", "--driving", "silent.mp4"),
        "--driving",
    ),
    "motion is no motion": (("--image", "face.png", "--output", "film.mp4", "--motion", "text.png"), "text.png"),
    "motion of another space": (
        ("--image", "face.png", "--output", "film.mp4", "--motion", "said.npz"),
        "liveportrait",
    ),
    "motion of no length": (("--image", "face.png", "--output", "film.mp4", "--motion", "short.npz"), "short.npz"),
    "driving film is text": (("--image", "face.png", "--output", "film.mp4", "--driving", "text.png"), "text.png"),
    "motion's folder missing": ((*GOOD, "--save-motion", "no/said.npz"), "no folder 'no'"),
    "motion over the film": ((*GOOD, "--save-motion", "film.mp4"), "does not end in .npz"),
    "options of the other engine": (
        (*GOOD, "--device", "cpu", "--compile", "--weights", "sub"),
        "--device and --compile and --weights can only be chosen for --engine liveportrait",
    ),
    "retargeting of the mesh": ((*GOOD, "--retarget-lips", "0.1"), "--retarget-lips can only be chosen for --engine"),
    "retargeting out of range": (
        (*GOOD, "--retarget-eyes", "0.9"),
        "'0.9' is neither 'driving' nor a number from 0 to",
    ),
    "retargeting by nothing": (
        (*GOOD, "--engine", "liveportrait", "--retarget-eyes", "driving"),
        "'driving' was asked for, but only a film",
    ),
    "template of the other engine": (
        ("--image", "face.png", "--output", "film.mp4", "--motion", "template.pkl"),
        "liveportrait",
    ),
    "template that is code": (("--image", "face.png", "--output", "film.mp4", "--motion", "code.pkl"), "posix.mkdir"),
    "no folder of weights": ((*GOOD, "--engine", "liveportrait", "--weights", "none"), "no folder 'none'"),
    "a name of two lines": (film("two\nlines.png"), "two lines"),
}


@pytest.fixture
def bad_folder(folder):
    (folder / "sub").mkdir()
    (folder / "text.png").write_text("not what it says\n" * 50)
    (folder / "cut.png").write_bytes((folder / "face.png").read_bytes()[:4000])
    (folder / "empty").touch()
    cv2.imwrite(str(folder / "grey.png"), np.full((80, 96, 3), 128, np.uint8))
    write_wav(folder / "nothing.wav", np.zeros(0))
    write_film(folder / "silent.mp4", driving_frames(5))
    still = np.ones((12, MOTION_WIDTH), np.float32)
    Motion.from_vector(still, "liveportrait").save(folder / "said.npz")
    Motion.from_vector(still[:0], "mesh").save(folder / "short.npz")
    test_template.written(folder / "template.pkl", test_template.template())
    test_template.written(folder / "code.pkl", test_template.Code(folder / "run"))
    return folder


@pytest.mark.parametrize("row", INPUTS_2)
def test_bad_input_ends_in_2_with_one_line(bad_folder, row):
    arguments, told = INPUTS_2[row]
    assert_fails(bad_folder, arguments, 2, told)


# --- what goes wrong on the way: exit 1 and 130 ---------------------------------------------------------------------


def without_privileges():
    """Root may write anywhere: take that away from the child (capabilities DAC_OVERRIDE and DAC_READ_SEARCH)."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.mark.parametrize("flag", ["--output", "--save-motion"])
def test_a_read_only_folder_ends_in_1(folder, flag):
    locked = folder / "locked"
    locked.mkdir()
    (locked / "film.mp4").write_bytes(OLD)
    locked.chmod(0o555)
    arguments = film(output="locked/film.mp4") if flag == "--output" else (*film(), flag, "locked/said.npz")
    try:
        assert_fails(folder, arguments, 1, "read-only", preexec_fn=without_privileges)
    finally:
        locked.chmod(0o755)


def small_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def test_a_full_disk_ends_in_1(folder):
    cv2.imwrite(str(folder / "face.png"), toy.picture(640, 480))
    assert_fails(folder, film(), 1, "film.mp4", preexec_fn=small_disk)


@pytest.mark.parametrize("left_over", [4 * 16_000 * 30, 1000], ids=["midway", "at the last bytes"])
def test_a_full_temporary_folder_ends_in_1(folder, left_over):
    """A long sound waits in a temporary file."""
    length_s = IN_MEMORY_S + 2.0
    write_wav(folder / "voice.wav", toy.sound(length_s))
    room = int(4 * 16_000 * length_s) - left_over
    assert_fails(
        folder, film(), 1, "voice.wav' cannot be kept in the folder for temporary files",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )  # fmt: skip


def test_a_long_sound_is_read_as_it_is(folder):
    voice = folder / "voice.wav"
    write_wav(voice, toy.sound(IN_MEMORY_S + 1.3))
    paths = {"--image": folder / "face.png", "--audio": voice, "--output": folder / "film.mp4"}
    driving = open_driving_input(parse([str(word) for pair in paths.items() for word in pair]))
    samples = np.concatenate(list(driving.speech))
    assert np.array_equal(samples, np.concatenate(list(read_sound(voice))))
    assert driving.frames == frame_count(len(samples))


def test_a_dying_ffmpeg_ends_in_1(folder):
    """The ffmpeg that reads the sound is the real one, the one that writes the film gives up."""
    fake = folder / "ffmpeg"
    real = imageio_ffmpeg.get_ffmpeg_exe()
    fake.write_text(f'#!/bin/sh\ncase "$*" in *libx264*) head -c 1000 >/dev/null; exit 1;; esac\nexec "{real}" "$@"\n')
    fake.chmod(0o755)
    assert_fails(folder, film(), 1, "film.mp4", env={**ENVIRONMENT, "IMAGEIO_FFMPEG_EXE": str(fake)})


def test_ctrl_c_ends_in_130_and_leaves_nothing(folder):
    cv2.imwrite(str(folder / "face.png"), toy.picture(640, 480))
    write_wav(folder / "voice.wav", np.tile(toy.sound(60), 10))
    before = snapshot(folder)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A shell starts its background jobs with Ctrl-C ignored; the command shall hear it wherever the tests run.
    hears = {"start_new_session": True, "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = subprocess.Popen([*TOY, *film()], cwd=folder, env=ENVIRONMENT, **hears, **pipes)
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) == len(before) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert len(toy.sentences(stderr)) == 1 and "Traceback" not in stderr, stderr
    assert snapshot(folder) == before
