"""Something odd but a film was made: logged once, in one line; nothing is logged for whole files."""

import struct
import subprocess
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import toy
from test_cli import write_film
from test_liveportrait_renderer import renderer as toy_liveportrait

from kdtalker.apps.cli import main
from kdtalker.face.openings import measure_openings
from kdtalker.face.portrait import Portrait
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.picture import read_image
from kdtalker.media.sound import read_sound
from kdtalker.media.video import VideoFrames, read_video
from kdtalker.renderers.mesh.renderer import MeshRenderer

EXAMPLES = Path(__file__).parents[2] / "examples"
VOICE = EXAMPLES / "austen_0890.wav"
VOICE_S = 5.3
FILM_S = 4.0
XING_OFF = ["-write_xing", "0"]


def ffmpeg(*arguments):
    program = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([program, "-v", "error", "-nostdin", "-y", *map(str, arguments)], check=True, timeout=60)


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_sound(path, *options):
    ffmpeg("-i", VOICE, *options, path)


def make_film(path, *options):
    """Four seconds of picture beside five of sound."""
    picture = ["-f", "lavfi", "-i", f"testsrc2=s=96x64:r=25:d={FILM_S}", "-i", VOICE]
    ffmpeg(*picture, "-g", "10", *options, path)


def streamed_wav(path):
    """As a program writes that does not know the length beforehand."""
    content = bytearray(VOICE.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    path.write_bytes(content)


def wav_of_ten_hours(path):
    content = bytearray(VOICE.read_bytes())[: 44 + 32_000]
    content[40:44] = struct.pack("<I", 10 * 3600 * 32_000)
    path.write_bytes(content)


def two_mp3_in_one(path):
    make_sound(path, "-q:a", "4", "-f", "mp3")
    path.write_bytes(2 * path.read_bytes())


def listen(path, start_s=0.0, duration_s=None):
    return sum(map(len, read_sound(path, start_s, duration_s, report=True))) / 16_000


def note(caplog):
    (record,) = caplog.records
    assert record.levelname == "WARNING" and record.name.startswith("kdtalker")
    return record.getMessage()


# Sounds


WHOLE = {
    "a.wav": ["-ar", "44100"],
    "float.wav": ["-c:a", "pcm_f32le", "-ac", "2"],
    "adpcm.wav": ["-c:a", "adpcm_ms"],
    "surround.wav": ["-ac", "6", "-c:a", "pcm_s24le"],
    "a.w64": [],
    "a.aiff": [],
    "a.flac": [],
    "cbr.mp3": ["-b:a", "64k"],
    "vbr.mp3": ["-q:a", "4"],
    "cbr_without_header.mp3": ["-b:a", "64k", *XING_OFF],
    "vbr_without_header.mp3": ["-q:a", "4", *XING_OFF],
    "a.m4a": ["-c:a", "aac"],
    "fragmented.m4a": ["-c:a", "aac", "-movflags", "frag_keyframe+empty_moov", "-frag_duration", "500000"],
    "a.aac": ["-c:a", "aac"],
    "a.ogg": ["-c:a", "libvorbis"],
    "a.opus": ["-c:a", "libopus"],
    "a.webm": ["-c:a", "libopus"],
    "a.mka": ["-c:a", "libvorbis"],
    "a.ts": ["-c:a", "aac"],
    "a.wma": [],
    "a.avi": ["-c:a", "libmp3lame"],
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_sound_is_not_noted(tmp_path, caplog, name):
    make_sound(tmp_path / name, *WHOLE[name])
    assert listen(tmp_path / name) == pytest.approx(VOICE_S, abs=0.12)
    assert listen(tmp_path / name, 2.0) > 3.2 and listen(tmp_path / name, 0.0, 1.0) == 1.0
    assert not caplog.records


@pytest.mark.parametrize("make", [streamed_wav, two_mp3_in_one])
def test_a_header_that_does_not_know_the_length_is_not_believed(tmp_path, caplog, make):
    make(tmp_path / make.__name__)
    assert listen(tmp_path / make.__name__) >= VOICE_S
    assert not caplog.records


CUT = {
    "a.wav": ["-ar", "44100"],
    "float.wav": ["-c:a", "pcm_f32le", "-ac", "2"],
    "a.aiff": [],
    "a.flac": [],
    "cbr.mp3": ["-b:a", "64k"],
    "vbr.mp3": ["-q:a", "4"],
    "a.m4a": ["-c:a", "aac", "-movflags", "+faststart"],
    "a.webm": ["-c:a", "libopus"],
    "a.mka": ["-c:a", "libvorbis"],
}


@pytest.mark.parametrize("name", CUT)
def test_a_sound_that_breaks_off_is_read_so_far_and_noted_once(tmp_path, caplog, name):
    make_sound(tmp_path / name, *CUT[name])
    halve(tmp_path / name)
    found_s = listen(tmp_path / name)
    assert 2.0 < found_s < 3.2
    told = note(caplog)
    assert f"{name}' breaks off at {found_s:.1f} s; its header declares 5.3 s" in told and "\n" not in told
    for _ in read_sound(tmp_path / name):  # the pass that makes the film
        pass
    assert len(caplog.records) == 1


def test_a_header_of_ten_hours_over_a_second_is_noted(tmp_path, caplog):
    wav_of_ten_hours(tmp_path / "a.wav")
    assert listen(tmp_path / "a.wav") == 1.0
    assert "breaks off at 1.0 s; its header declares 36000.0 s" in note(caplog)


def test_a_part_that_is_there_is_not_noted_and_one_that_is_not_is(tmp_path, caplog):
    make_sound(tmp_path / "a.flac")
    halve(tmp_path / "a.flac")
    assert listen(tmp_path / "a.flac", 0.5, 1.0) == 1.0
    assert not caplog.records
    listen(tmp_path / "a.flac", 1.0, 3.0)
    note(caplog)


# Films


WHOLE_FILMS = {
    "a.mp4": ["-c:a", "aac"],
    "a.mov": ["-an"],
    "a.webm": ["-c:v", "libvpx", "-c:a", "libopus"],
    "a.mkv": ["-c:a", "aac"],
    "slow.mp4": ["-r", "12.5"],
    "a.avi": [],
    "a.ts": [],
    "a.gif": ["-an", "-r", "5"],
}


@pytest.mark.parametrize("name", WHOLE_FILMS)
def test_a_whole_film_is_not_noted(tmp_path, caplog, name):
    make_film(tmp_path / name, *WHOLE_FILMS[name])
    frames = read_video(tmp_path / name, report=True)
    assert sum(1 for _ in frames) > 25 * FILM_S - 3
    assert not caplog.records


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mkv"])
def test_a_film_that_breaks_off_is_read_so_far_and_noted_once(tmp_path, caplog, name):
    make_film(tmp_path / name, *WHOLE_FILMS[name], *(["-movflags", "+faststart"] if name == "a.mp4" else []))
    halve(tmp_path / name)
    count = sum(1 for _ in read_video(tmp_path / name, report=True))
    assert 20 < count < 85
    assert f"{name}' breaks off after {count} frames; its header declares 100" in note(caplog)
    for _ in read_video(tmp_path / name):
        pass
    assert len(caplog.records) == 1


def test_a_driving_film_that_is_decoded_twice_is_noted_once(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("face.png", toy.picture()[..., ::-1])
    make_film("a.mp4", "-an", "-movflags", "+faststart")
    halve(tmp_path / "a.mp4")

    class TwiceDecodingEngine(toy.ToyEngine):
        def track(self, frames):
            list(frames)
            return super().track(frames)

    engine = toy.pipeline(TwiceDecodingEngine())
    assert main(["--image", "face.png", "--driving", "a.mp4", "--output", "film.mp4"], load=lambda job: engine) == 0
    assert capfd.readouterr().err.count("breaks off after") == 1


def test_a_driving_film_that_breaks_off_is_noted_whoever_tracks_it(tmp_path, tracker, face, caplog):
    write_film(tmp_path / "a.mp4", [face] * 50, "-g", "5", "-movflags", "+faststart")
    halve(tmp_path / "a.mp4")
    count = len(list(toy_liveportrait(tracker).track(VideoFrames(tmp_path / "a.mp4"))))
    told = {record.getMessage() for record in caplog.records}
    assert 0 < count < 50 and [f"after {count} frames; its header declares 50" in note for note in told] == [True]


def test_a_film_that_is_left_early_is_not_noted(tmp_path, caplog):
    make_film(tmp_path / "a.mp4", "-movflags", "+faststart")
    halve(tmp_path / "a.mp4")
    frames = read_video(tmp_path / "a.mp4", report=True)
    next(frames)
    frames.close()
    assert not caplog.records


# Faces


@pytest.fixture(scope="module")
def tracker():
    return FaceTracker()


@pytest.fixture(scope="module")
def face():
    return read_image(EXAMPLES / "grace_hopper.jpg")


def test_frames_without_a_face_are_counted(tracker, face, caplog):
    nothing, renderer = np.zeros_like(face), MeshRenderer.load(tracker)
    assert len(list(renderer.track([face] * 3))) == 3
    assert not caplog.records
    assert len(list(renderer.track([nothing, face, nothing, face, face]))) == 5
    assert "The face was lost in 2 of 5 frames of the driving video" in note(caplog)
    caplog.clear()
    motions = renderer.track([face, nothing, face, face, nothing])
    for _ in range(3):
        next(motions)
    motions.close()
    assert "lost in 1 of 3 frames" in note(caplog)
    caplog.clear()
    measure_openings([face, nothing, face], tracker)
    assert "lost in 1 of 3 frames" in note(caplog)


@pytest.mark.parametrize("seen", [list, iter])
def test_frames_without_a_face_are_counted_by_the_published_renderer_too(tracker, face, caplog, seen):
    nothing, renderer = np.zeros_like(face), toy_liveportrait(tracker)
    assert len(list(renderer.track(seen([face] * 2)))) == 2
    assert not caplog.records
    assert len(list(renderer.track(seen([nothing, face, nothing, face])))) == 4
    assert "The face was lost in 2 of 4 frames of the driving video" in note(caplog)


def test_a_picture_that_is_scaled_down_is_noted_once(tracker, face, caplog):
    large = np.repeat(np.repeat(face, 4, axis=0), 4, axis=1)
    Portrait.find(face, tracker)
    Portrait.find(large, tracker, crop=True)  # shows the square alone, which is scaled anyhow
    assert not caplog.records
    Portrait.find(large, tracker)
    assert "2048 x 2400 px was scaled down to 1638 x 1920 px; --max-side" in note(caplog)
