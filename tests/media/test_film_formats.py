"""Films in every format, opaque or with an alpha channel, read back by another decoder."""

import subprocess

import av
import imageio_ffmpeg
import numpy as np
import pytest
import test_cli
import toy
from test_cli import call, film, folder  # noqa: F401 (a fixture)

from kdtalker.core.errors import InputError
from kdtalker.media.video_writer import TAG, VideoWriter


def gradient(height=48, width=64):
    """Smooth colours, (height, width, 3)."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([4 * columns, 5 * rows, 255 - 3 * columns], -1).clip(0, 255).astype(np.uint8)


def pixels(path, decoder=()):
    """All frames (T, 48, 64, 4) as ffmpeg's own decoders see them."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *decoder, "-i", str(path), "-pix_fmt", "rgba"]
    done = subprocess.run([*command, "-f", "rawvideo", "-"], capture_output=True, check=True, timeout=60)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, 48, 64, 4)


@pytest.mark.parametrize(
    ("suffix", "video", "sound", "far_off"),
    [(".mp4", "h264", "aac", 4), (".mov", "h264", "aac", 4), (".webm", "vp9", "opus", 4), (".gif", "gif", None, 8)],
)
def test_a_film_of_each_format_shows_the_frames_and_says_what_it_is(tmp_path, suffix, video, sound, far_off):
    path = tmp_path / f"a{suffix.upper()}"
    with VideoWriter(path, 64, 48, sound=test_cli.ROOT / "examples" / "austen_0870.wav") as writer:
        for shift in range(10):
            writer.write(np.roll(gradient(), 2 * shift, axis=1))
    with av.open(str(path)) as container:
        assert [stream.codec_context.name for stream in container.streams] == [video, sound][: 1 + bool(sound)]
        assert TAG in {key.lower(): value for key, value in container.metadata.items()}["comment"]
        assert container.streams.video[0].average_rate == 25
    seen = pixels(path)
    assert len(seen) == 10
    for shift, frame in enumerate(seen):
        assert np.abs(frame[..., :3].astype(int) - np.roll(gradient(), 2 * shift, axis=1)).mean() < far_off


@pytest.mark.parametrize(("suffix", "decoder"), [(".mov", ()), (".webm", ("-c:v", "libvpx-vp9"))])
def test_the_alpha_channel_survives(tmp_path, suffix, decoder):
    alpha = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    with VideoWriter(tmp_path / f"a{suffix}", 64, 48, alpha=True) as writer:
        for _ in range(3):
            writer.write(np.dstack([gradient(), alpha]))
    seen = pixels(tmp_path / f"a{suffix}", decoder)
    assert len(seen) == 3
    assert np.abs(seen[..., 3].astype(int) - alpha).max() <= 6
    assert np.abs(seen[..., :3].astype(int) - gradient()).mean() < 4


def test_a_format_without_alpha_is_refused_for_it(tmp_path):
    with pytest.raises(InputError, match=r"does not end in \.mov or \.webm.*alpha"):
        VideoWriter(tmp_path / "a.mp4", 64, 48, alpha=True)


@pytest.mark.parametrize("name", ["film.mov", "film.webm", "film.gif"])
def test_the_command_line_writes_the_format_of_the_name(folder, name):  # noqa: F811
    assert call(folder, *film(output=name)).returncode == 0
    frames, size, sound_s = test_cli.read_back(folder / name)
    assert (frames, size) == (25, (96, 80)) and (sound_s is None) == (name == "film.gif")


def test_alpha_shows_the_moving_person_alone(folder):  # noqa: F811
    """The toy engine's face is rolled sideways; its matte is rolled with it."""
    done = call(folder, *film(output="film.mov"), "--alpha")
    assert (done.returncode, toy.sentences(done.stderr)) == (0, [])
    with av.open(str(folder / "film.mov")) as container:
        assert container.streams.video[0].codec_context.pix_fmt.startswith("yuva444p")
    refused = call(folder, *film(output="film.mov"), "--alpha", "--background", "teal")
    assert refused.returncode == 2 and "--alpha and --background" in refused.stderr
