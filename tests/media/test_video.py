"""Pictures and films read as people see them; a film written whole or not at all."""

import os
import resource
import stat
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from PIL import Image

from kdtalker.core.errors import InputError, OutputError
from kdtalker.core.rates import frame_count
from kdtalker.media import ffmpeg as ffmpeg_process
from kdtalker.media.picture import read_image
from kdtalker.media.video import probe_video, read_video
from kdtalker.media.video_writer import VideoWriter

ROOT = Path(__file__).parents[2]
VOICE = ROOT / "examples" / "austen_0870.wav"
VOICE_S = 7.1
OLD = b"the film that was there before"


def ffmpeg(*arguments):
    program = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([program, "-v", "error", "-nostdin", "-y", *map(str, arguments)], check=True, timeout=60)


def halves(height=40, width=60):
    """Red above, blue below, (height, width, 3)."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, :, 0] = 200
    picture[height // 2 :, :, 2] = 200
    return picture


# Pictures


def test_rgb_comes_through_unchanged(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(read, noise)
    assert read.dtype == np.uint8 and read.flags.writeable


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, 1), (3, 2), (8, 3)])
def test_a_picture_is_turned_as_its_exif_says(tmp_path, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.rot90(halves(), turns)).save(tmp_path / "turned.jpg", exif=exif, quality=95, subsampling=0)
    read = read_image(tmp_path / "turned.jpg")
    assert read.shape == halves().shape
    assert np.abs(read.astype(int) - halves()).mean() < 4


def png_of_16_bits(path):
    """Red 65535, green 32768, blue 0, one pixel."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">HHH", 65535, 32768, 0)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))


def palette_with_a_hole(path):
    image = Image.new("P", (1, 1), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(path, transparency=1)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: Image.new("L", (1, 1), 77).save(path), (77, 77, 77)),
        (lambda path: Image.new("1", (1, 1), 1).save(path), (255, 255, 255)),
        (lambda path: Image.fromarray(np.full((1, 1), 32768, np.uint16)).save(path), (127, 127, 127)),
        (png_of_16_bits, (255, 128, 0)),
        (lambda path: Image.new("RGBA", (1, 1), (255, 0, 0, 0)).save(path), (255, 255, 255)),
        (lambda path: Image.new("RGBA", (1, 1), (255, 0, 0, 51)).save(path), (255, 204, 204)),
        (lambda path: Image.new("LA", (1, 1), (0, 51)).save(path), (204, 204, 204)),
        (palette_with_a_hole, (255, 255, 255)),
        (lambda path: Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path, "JPEG", quality=95), (255, 0, 0)),
    ],
    ids=["grey", "bits", "grey16", "rgb16", "clear", "veil", "grey-alpha", "palette", "cmyk"],
)
def test_every_kind_of_pixel_becomes_rgb(tmp_path, make, expected):
    make(tmp_path / "a.png")
    assert np.abs(read_image(tmp_path / "a.png")[0, 0].astype(int) - expected).max() <= 2


def cut_short(path, suffix):
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)).save(path, suffix)
    path.write_bytes(path.read_bytes()[:2000])


def bomb(path):
    Image.new("1", (10_000, 9_000)).save(path)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("missing.png", lambda path: None, "No such file"),
        ("folder.png", Path.mkdir, "not a file"),
        ("empty.png", Path.touch, "0 bytes"),
        ("text.png", lambda path: path.write_text("not a picture" * 99), "not a picture"),
        ("cut.png", lambda path: cut_short(path, "PNG"), "truncated"),
        ("cut.jpg", lambda path: cut_short(path, "JPEG"), "truncated"),
        ("bomb.png", bomb, "89 megapixels"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(tmp_path, name, make, message, recwarn):
    make(tmp_path / name)
    with pytest.raises(InputError, match=message) as refused:
        read_image(tmp_path / name)
    assert name in str(refused.value) and "\n" not in str(refused.value)
    assert not recwarn.list


# Films


def grey_ramp(path, rate, frames, *arguments):
    """A film whose frame i is grey 4·i."""
    shade = f"nullsrc=s=64x48:r={rate}:d={frames / rate},geq=lum=16+4*N*219/255:cb=128:cr=128"
    ffmpeg("-f", "lavfi", "-i", shade, "-pix_fmt", "yuv420p", "-crf", "1", *arguments, path)


def test_a_film_is_resampled_to_25_frames_a_second(tmp_path):
    grey_ramp(tmp_path / "film.mp4", 50, 50)
    frames = list(read_video(tmp_path / "film.mp4"))
    assert len(frames) == 25 and {frame.shape for frame in frames} == {(48, 64, 3)}
    greys = [frame.mean() for frame in frames]
    np.testing.assert_allclose(np.diff(greys), 8, atol=4.5)
    assert greys[0] < 8 and greys[-1] == pytest.approx(196, abs=6)
    assert len(list(read_video(tmp_path / "film.mp4", fps=10))) == 10


def test_a_film_tells_what_it_is(tmp_path):
    grey_ramp(tmp_path / "film.mp4", 30, 60)
    info = probe_video(tmp_path / "film.mp4")
    assert (info.width, info.height, info.has_sound) == (64, 48, False)
    assert (info.duration_s, info.fps) == (pytest.approx(2.0), pytest.approx(30.0))
    ffmpeg("-i", tmp_path / "film.mp4", "-i", VOICE, "-shortest", "-c:a", "libopus", tmp_path / "film.webm")
    info = probe_video(tmp_path / "film.webm")
    assert info.has_sound and info.duration_s == pytest.approx(2.0, abs=0.1)


def test_a_film_taken_with_a_turned_phone_stands_upright(tmp_path):
    still = tmp_path / "still.png"
    Image.fromarray(np.rot90(halves(48, 64))).save(still)  # lies on its side
    ffmpeg("-loop", "1", "-i", still, "-t", "0.2", "-r", "25", "-pix_fmt", "yuv420p", tmp_path / "flat.mp4")
    ffmpeg("-display_rotation:v:0", "-90", "-i", tmp_path / "flat.mp4", "-c", "copy", tmp_path / "film.mp4")
    frames = list(read_video(tmp_path / "film.mp4"))
    info = probe_video(tmp_path / "film.mp4")
    assert frames[0].shape == (48, 64, 3) == (info.height, info.width, 3)
    assert np.abs(frames[0].astype(int) - halves(48, 64)).mean() < 8


def test_a_film_with_wide_pixels_is_made_square(tmp_path):
    grey_ramp(tmp_path / "film.mp4", 25, 3, "-vf", "setsar=3/2")
    info = probe_video(tmp_path / "film.mp4")
    assert next(read_video(tmp_path / "film.mp4")).shape == (48, 96, 3) == (info.height, info.width, 3)


def test_a_viewer_who_leaves_early_leaves_no_ffmpeg_behind(tmp_path, processes):
    grey_ramp(tmp_path / "film.mp4", 25, 50)
    frames = read_video(tmp_path / "film.mp4")
    next(frames)
    frames.close()
    assert "pipe:" in processes[-1].args and processes[-1].poll() is not None


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("missing.mp4", lambda path: None, "No such file"),
        ("folder.mp4", Path.mkdir, "not a file"),
        ("empty.mp4", Path.touch, "0 bytes"),
        ("text.mp4", lambda path: path.write_text("not a film" * 99), "can be decoded"),
        ("voice.mp4", lambda path: path.write_bytes(VOICE.read_bytes()), "no moving picture"),
        ("still.mp4", lambda path: Image.fromarray(halves()).save(path, "PNG"), "no moving picture"),
    ],
)
def test_what_is_no_film_is_refused_in_one_line(tmp_path, name, make, message):
    make(tmp_path / name)
    for read in (probe_video, lambda path: list(read_video(path))):
        with pytest.raises(InputError, match=message) as refused:
            read(tmp_path / name)
        assert name in str(refused.value) and "\n" not in str(refused.value)


# Writing


@pytest.fixture
def processes(monkeypatch):
    """Every ffmpeg that was started."""
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(ffmpeg_process.subprocess, "Popen", Recorded)
    return started


def write(path, count, frame=None, **options):
    frame = halves(48, 64) if frame is None else frame
    with VideoWriter(path, frame.shape[1], frame.shape[0], **options) as film:
        for _ in range(count):
            film.write(frame)


def sound_s(path):
    """How long the decoded sound is, and its samples of the first channel at 48 kHz."""
    with av.open(str(path)) as film:
        track = film.streams.audio[0]
        assert (track.codec_context.name, track.rate) == ("aac", 48_000)
        samples = np.concatenate([frame.to_ndarray()[0] for frame in film.decode(track)])
        return float(track.duration * track.time_base), samples


def test_a_film_is_what_every_phone_plays(tmp_path):
    write(tmp_path / "a.mp4", 12, sound=VOICE)
    with av.open(str(tmp_path / "a.mp4")) as film:
        track = film.streams.video[0]
        codec = track.codec_context
        assert (codec.name, codec.pix_fmt, codec.width, codec.height) == ("h264", "yuv420p", 64, 48)
        assert track.average_rate == 25
        bt709, limited = 1, 1
        assert (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range) == (
            bt709, bt709, bt709, limited,
        )  # fmt: skip
        assert sum(1 for _ in film.decode(track)) == 12
        assert float(track.duration * track.time_base) == pytest.approx(12 / 25)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays while it loads


@pytest.mark.parametrize(("channels", "rate_kbit_s"), [(1, 96), (2, 160)])
def test_sound_of_one_channel_takes_fewer_bits(tmp_path, channels, rate_kbit_s):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (4 * 48_000, channels))
    soundfile.write(tmp_path / "a.wav", noise, 48_000)
    write(tmp_path / "a.mp4", 100, sound=tmp_path / "a.wav")
    with av.open(str(tmp_path / "a.mp4")) as film:
        (track,) = film.streams.audio
        assert track.codec_context.channels == channels
        assert track.bit_rate == pytest.approx(1000 * rate_kbit_s, rel=0.15)


@pytest.mark.parametrize("colour", [(200, 60, 30), (20, 180, 90), (250, 250, 250), (224, 172, 140), (0, 0, 255)])
def test_colours_survive(tmp_path, colour):
    write(tmp_path / "a.mp4", 3, np.full((48, 64, 3), colour, np.uint8))
    for frame in read_video(tmp_path / "a.mp4"):
        assert np.abs(frame.astype(int) - colour).max() <= 3


def test_every_frame_arrives_in_its_place(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 64, 48) as film:
        for i in range(30):
            film.write(np.full((48, 64, 3), 8 * i, np.uint8))
    greys = [frame.mean() for frame in read_video(tmp_path / "a.mp4")]
    np.testing.assert_allclose(greys, 8 * np.arange(30), atol=3)


def test_odd_sizes_repeat_the_last_row_and_column(tmp_path):
    picture = np.zeros((47, 63, 3), np.uint8)
    picture[:, 32:], picture[30:] = 200, 100
    write(tmp_path / "a.mp4", 2, picture, crf=1)
    frame = next(read_video(tmp_path / "a.mp4"))
    assert frame.shape == (48, 64, 3)
    assert np.abs(frame[:47, :63].astype(int) - picture).mean() < 3
    assert np.abs(frame[47].astype(int) - frame[46]).max() <= 3
    assert np.abs(frame[:, 63].astype(int) - frame[:, 62]).max() <= 3


def test_the_sound_is_the_voice_from_the_first_sample_to_its_exact_length(tmp_path):
    write(tmp_path / "a.mp4", 178, sound=VOICE, duration_s=VOICE_S)
    length_s, samples = sound_s(tmp_path / "a.mp4")
    assert length_s == pytest.approx(VOICE_S, abs=1e-3)
    voice, _ = soundfile.read(VOICE)
    ours = samples[: 3 * len(voice) : 3]
    assert np.corrcoef(ours, voice[: len(ours)])[0, 1] > 0.9


@pytest.mark.parametrize("count", [1, 25, 178, 300])
def test_without_a_length_the_sound_ends_with_the_picture(tmp_path, count):
    """Cut where the film is shorter, silence where it is longer."""
    write(tmp_path / "a.mp4", count, sound=VOICE)
    length_s, samples = sound_s(tmp_path / "a.mp4")
    assert abs(length_s - count / 25) <= 1 / 25
    assert sum(1 for _ in read_video(tmp_path / "a.mp4")) == count
    if count > 200:
        assert np.abs(samples[int(7.3 * 48_000) :]).max() < 1e-3


@pytest.mark.parametrize("samples", [1, 639, 640, 641])
def test_a_sound_of_a_few_samples_keeps_its_length(tmp_path, samples):
    soundfile.write(tmp_path / "a.wav", np.full(samples, 0.1), 16_000)
    write(tmp_path / "a.mp4", frame_count(samples), sound=tmp_path / "a.wav", duration_s=samples / 16_000)
    assert sound_s(tmp_path / "a.mp4")[0] == pytest.approx(samples / 16_000, abs=1e-4)


def test_a_shorter_length_cuts_the_sound_and_keeps_the_frames(tmp_path):
    write(tmp_path / "a.mp4", 50, sound=VOICE, duration_s=1.99)
    assert sound_s(tmp_path / "a.mp4")[0] == pytest.approx(1.99, abs=1e-3)
    assert sum(1 for _ in read_video(tmp_path / "a.mp4")) == 50


def test_broken_samples_and_six_channels_make_a_sound_all_the_same(tmp_path):
    samples = np.zeros((16_000, 6), np.float32)
    samples[:] = 0.2 * np.sin(np.arange(16_000) * 0.2)[:, None]
    samples[500:600] = np.nan
    samples[900] = np.inf
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    write(tmp_path / "a.mp4", 25, sound=tmp_path / "a.wav", duration_s=1.0)
    length_s, read = sound_s(tmp_path / "a.mp4")
    assert length_s == pytest.approx(1.0, abs=1e-3)
    assert np.isfinite(read).all() and read[10_000:40_000].std() > 0.05


def test_the_driving_film_lends_its_sound(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "color=s=32x32:r=30:d=3", "-i", VOICE, "-shortest", tmp_path / "film.mp4")
    write(tmp_path / "a.mp4", 60, sound=tmp_path / "film.mp4")
    length_s, samples = sound_s(tmp_path / "a.mp4")
    assert abs(length_s - 2.4) <= 1 / 25 and samples.std() > 0.01


@pytest.mark.parametrize("name", ['a b\'s "film".mp4', "фильм 映画.mp4", "-y.mp4", "%03d.mp4", "data:x.MP4"])
def test_any_file_name_is_only_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write(Path(name), 2, sound=VOICE)
    assert os.listdir() == [name]
    assert sum(1 for _ in read_video(Path(name))) == 2


class Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop, ValueError])
def test_an_interruption_leaves_nothing_behind_and_the_old_film_as_it_was(tmp_path, processes, error):
    (tmp_path / "a.mp4").write_bytes(OLD)
    with pytest.raises(error), VideoWriter(tmp_path / "a.mp4", 64, 48, sound=VOICE) as film:
        film.write(halves(48, 64))
        raise error
    assert os.listdir(tmp_path) == ["a.mp4"] and (tmp_path / "a.mp4").read_bytes() == OLD
    assert processes[0].poll() is not None


def test_a_whole_film_replaces_the_old_one(tmp_path):
    (tmp_path / "a.mp4").write_bytes(OLD)
    write(tmp_path / "a.mp4", 2)
    assert os.listdir(tmp_path) == ["a.mp4"] and probe_video(tmp_path / "a.mp4").width == 64


def test_a_dying_ffmpeg_is_an_error_in_one_line(tmp_path, processes):
    (tmp_path / "a.mp4").write_bytes(OLD)
    noise = np.random.default_rng(2).integers(0, 256, (480, 640, 3), np.uint8)
    film = VideoWriter(tmp_path / "a.mp4", 640, 480)
    with pytest.raises(OutputError, match="signal: Killed") as failed, film:
        film.write(noise)
        processes[0].kill()
        for _ in range(20):
            film.write(noise)
    assert "\n" not in str(failed.value)
    assert os.listdir(tmp_path) == ["a.mp4"] and (tmp_path / "a.mp4").read_bytes() == OLD


def test_its_last_words_are_told(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    complaints = "echo 'No space left on device' >&2; echo 'Conversion failed!' >&2"
    program.write_text(f"#!/bin/sh\ncat >/dev/null; {complaints}; exit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match=r"a\.mp4.*\(No space left on device\)"):
        write(tmp_path / "out" / "a.mp4", 3)
    assert not os.listdir(tmp_path / "out")


def test_a_full_disk_is_an_error_and_leaves_the_old_film(tmp_path):
    """The limit on the size of files ends ffmpeg as it writes."""
    (tmp_path / "a.mp4").write_bytes(OLD)
    script = (
        "import sys, numpy as np; from pathlib import Path; from kdtalker.media.video_writer import VideoWriter\n"
        "from kdtalker.core.errors import OutputError\n"
        "frames = np.random.default_rng(3).integers(0, 256, (40, 240, 320, 3), np.uint8)\n"
        "try:\n"
        "    with VideoWriter(Path(sys.argv[1]), 320, 240) as film:\n"
        "        for frame in frames: film.write(frame)\n"
        "except OutputError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.mp4")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "could not be written" in done.stdout and done.stdout.count("\n") == 1
    assert os.listdir(tmp_path) == ["a.mp4"] and (tmp_path / "a.mp4").read_bytes() == OLD


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/a.mp4", "no folder"),
        ("file/a.mp4", "no folder"),
        ("a.mp4", "is a folder"),
        ("a.avi", "end in .mp4"),
    ],
)
def test_a_target_that_cannot_be_is_the_callers_mistake(tmp_path, name, message):
    (tmp_path / "a.mp4").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=message):
        write(tmp_path / name, 1)
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "file"]


def test_a_missing_sound_is_the_callers_mistake(tmp_path):
    with pytest.raises(InputError, match=r"none\.wav"):
        write(tmp_path / "a.mp4", 1, sound=tmp_path / "none.wav")
    assert not os.listdir(tmp_path)


def test_a_folder_that_takes_no_file_is_an_output_error():
    """As an unprivileged user, in a folder of the administrator."""
    script = (
        "import os; from pathlib import Path; from kdtalker.media.video_writer import VideoWriter\n"
        "from kdtalker.core.errors import OutputError\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: VideoWriter(Path('/kdtalker-test.mp4'), 64, 48)\n"
        "except OutputError as error: print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "read-only for this user" in done.stdout


def test_a_film_without_frames_is_not_written(tmp_path):
    with pytest.raises(OutputError, match="no frames"):
        write(tmp_path / "a.mp4", 0)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("frame", [np.zeros((48, 63, 3), np.uint8), np.zeros((48, 64, 3), np.float32)])
def test_a_frame_of_another_shape_is_a_programming_error(tmp_path, frame):
    with pytest.raises(ValueError, match="wanted uint8"), VideoWriter(tmp_path / "a.mp4", 64, 48) as film:
        film.write(frame)


def test_a_view_into_a_larger_picture_can_be_written(tmp_path):
    large = np.zeros((100, 200, 3), np.uint8)
    large[:, 100:] = 180
    write(tmp_path / "a.mp4", 2, large[::2, 100:196, ::-1])
    assert next(read_video(tmp_path / "a.mp4")).mean() == pytest.approx(180, abs=2)
