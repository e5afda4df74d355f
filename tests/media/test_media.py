"""Files of all kinds, good and hostile: channels are averaged, no other file is opened, refusals name the reason."""

import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from PIL import Image

from kdtalker.core.errors import InputError, OutputError
from kdtalker.media.picture import read_image
from kdtalker.media.probe import DEMUXERS
from kdtalker.media.sound import read_sound
from kdtalker.media.video import probe_video, read_video

ROOT = Path(__file__).parents[2]
VOICE = ROOT / "examples" / "austen_0890.wav"
VOICE_S = 5.3


def ffmpeg(*arguments):
    program = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([program, "-v", "error", "-nostdin", "-y", *map(str, arguments)], check=True, timeout=60)


def decoded(path, *arguments):
    return np.concatenate(list(read_sound(path, *arguments)))


def mean_of_channels(path):
    """What PyAV decodes, averaged by numpy."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        channels = container.streams.audio[0].codec_context.channels
        planar = container.streams.audio[0].codec_context.format.is_planar
    samples = np.concatenate([frame if planar else frame.reshape(-1, channels).T for frame in frames], axis=1)
    scale = 2**15 if samples.dtype == np.int16 else 1
    return channels, samples.astype(np.float64).mean(0) / scale


def noise(channels, seconds=0.5):
    """Independent full-scale noise in each channel (N, channels)."""
    return np.random.default_rng(channels).uniform(-1, 1, (int(16_000 * seconds), channels))


# Channels


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 8, 20])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_mono_is_the_mean_of_any_number_of_channels(tmp_path, channels, subtype):
    soundfile.write(tmp_path / "a.wav", noise(channels), 16_000, subtype)
    found, expected = mean_of_channels(tmp_path / "a.wav")
    assert found == channels
    np.testing.assert_allclose(decoded(tmp_path / "a.wav"), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "layout", "options"),
    [
        ("a.flac", "5.1", []),
        ("a.flac", "7.1", []),
        ("a.mov", "5.1", ["-c:a", "pcm_s16le"]),
        ("a.mka", "7.1(wide)", ["-c:a", "pcm_s16le"]),
        ("a.wav", "quad", []),
        ("a.mp4", "stereo", ["-c:a", "aac", "-b:a", "256k"]),
        ("a.mp4", "5.1", ["-c:a", "aac", "-b:a", "512k"]),
        ("a.mp3", "stereo", []),
    ],
)
def test_mono_is_the_mean_whatever_the_layout_and_the_codec(tmp_path, name, layout, options):
    channels = {"stereo": 2, "quad": 4, "5.1": 6}.get(layout, 8)
    soundfile.write(tmp_path / "source.wav", noise(channels) / 2, 16_000)
    ffmpeg("-i", tmp_path / "source.wav", "-af", f"aformat=channel_layouts={layout}", *options, tmp_path / name)
    found, expected = mean_of_channels(tmp_path / name)
    ours = decoded(tmp_path / name)
    assert found == channels and abs(len(ours) - len(expected)) <= 1024  # a codec's padding
    length = min(len(ours), len(expected))
    np.testing.assert_allclose(ours[:length], expected[:length].clip(-1, 1), rtol=0, atol=1e-5)


def test_full_scale_stereo_is_not_clipped_and_opposite_channels_are_silence(tmp_path):
    wave = 0.99 * np.sin(np.arange(16_000) * 0.05)
    soundfile.write(tmp_path / "same.wav", np.stack([wave, wave], 1), 16_000)
    soundfile.write(tmp_path / "opposite.wav", np.stack([wave, -wave], 1), 16_000)
    soundfile.write(tmp_path / "left.wav", np.stack([wave, 0 * wave], 1), 16_000)
    np.testing.assert_allclose(decoded(tmp_path / "same.wav"), wave, rtol=0, atol=1e-4)
    assert np.abs(decoded(tmp_path / "opposite.wav")).max() < 1e-4
    np.testing.assert_allclose(decoded(tmp_path / "left.wav"), wave / 2, rtol=0, atol=1e-4)


def test_stereo_at_another_rate_is_as_loud_as_mono(tmp_path):
    ffmpeg("-i", VOICE, "-ar", "48000", tmp_path / "mono.wav")
    ffmpeg("-i", tmp_path / "mono.wav", "-af", "pan=stereo|c0=c0|c1=c0", tmp_path / "stereo.wav")
    np.testing.assert_allclose(decoded(tmp_path / "stereo.wav"), decoded(tmp_path / "mono.wav"), rtol=0, atol=1e-6)


# Links to other files


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{other}\n#EXT-X-ENDLIST\n"
PLAYLISTS = {
    "a.m3u8": HLS,
    "renamed.mp4": HLS,
    "a.ffconcat": "ffconcat version 1.0\nfile {other.name}\n",
    "a.m3u": "{other}\n",
    "a.pls": "[playlist]\nFile1={other}\n",
    "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=audio 5004 RTP/AVP 0\n",
    "a.mpd": '<?xml version="1.0"?>\n<MPD type="static"><BaseURL>{other}</BaseURL></MPD>\n',
    "a.cue": 'TITLE "x"\nFILE "{other.name}" WAVE\n  TRACK 01 AUDIO\n',
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_are_refused_as_such_and_open_no_other_file(tmp_path, name):
    other = tmp_path / "other.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=s=32x32:r=25:d=1", "-i", VOICE, "-shortest", "-c:a", "aac", other)
    (tmp_path / name).write_text(PLAYLISTS[name].format(other=other))
    for read in (read_sound, read_video):
        with pytest.raises(InputError, match=f"{name}' is a playlist, which leads to other files; give"):
            next(read(tmp_path / name))


def test_a_numbered_picture_opens_no_other_picture(tmp_path):
    for number in range(5):
        Image.new("RGB", (32, 32), (9 * number, 0, 0)).save(tmp_path / f"a{number}.jpg")
    Image.new("RGB", (32, 32)).save(tmp_path / "a%d.jpg")
    with pytest.raises(InputError, match="a%d.jpg"):
        list(read_video(tmp_path / "a%d.jpg"))


def test_the_demuxers_are_those_of_ffmpeg_that_follow_no_links():
    program = imageio_ffmpeg.get_ffmpeg_exe()
    listed = subprocess.run([program, "-hide_banner", "-demuxers"], capture_output=True, text=True, check=True).stdout
    known = {name for line in listed.splitlines() for word in line.split()[1:3] for name in word.split(",")}
    allowed = set(DEMUXERS.split(","))
    linking = {"hls", "dash", "concat", "sdp", "rtp", "rtsp", "image2", "imf", "webm_dash_manifest", "svg_pipe", "sap"}
    assert allowed <= known and linking <= known and not allowed & linking


# Names and permissions


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="the file system takes only names in Unicode")
def test_a_name_that_is_not_utf_8_is_only_a_name(tmp_path):
    film, sound, text = (tmp_path / os.fsdecode(name) for name in (b"\xff.mp4", b"\xff.wav", b"\xff.txt"))
    ffmpeg("-f", "lavfi", "-i", "color=s=32x32:r=25:d=1", "-i", VOICE, "-c:a", "aac", film)
    sound.write_bytes(VOICE.read_bytes())
    text.write_text("words " * 50)
    assert probe_video(film).has_sound and sum(1 for _ in read_video(film)) == 25
    assert len(decoded(film)) > 80_000 and len(decoded(sound)) == VOICE_S * 16_000
    for read in (read_sound, read_video):
        with pytest.raises(InputError, match="can be decoded"):
            next(read(text))


def test_a_tag_that_is_not_utf_8_does_no_harm(tmp_path):
    content = VOICE.read_bytes()
    tag = b"INFOINAM" + struct.pack("<I", 4) + b"M\xfcll"
    content += b"LIST" + struct.pack("<I", len(tag)) + tag
    (tmp_path / "a.wav").write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])
    assert len(decoded(tmp_path / "a.wav")) == VOICE_S * 16_000


def test_what_may_not_be_read_is_told_as_such():
    """As an unprivileged user."""
    script = (
        "import os, sys, av; from pathlib import Path\n"
        "from kdtalker import read_image, read_sound; from kdtalker.media.video import probe_video\n"
        "from kdtalker.core.errors import InputError\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "for read in (lambda path: next(read_sound(path)), probe_video, read_image):\n"
        "    try: read(Path(sys.argv[1]))\n"
        "    except InputError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, whose parents nobody else may search
        Path(folder).chmod(0o755)
        path = Path(folder) / "locked.wav"
        path.write_bytes(VOICE.read_bytes())
        path.chmod(0)
        command, environment = [sys.executable, "-c", script, str(path)], {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.count("cannot be opened (Permission denied)") == 3, done.stderr


# Damage


def wav_with(path, channels):
    content = bytearray(VOICE.read_bytes())
    content[22:24] = struct.pack("<H", channels)
    path.write_bytes(content)


def wav_of_unknown_codec(path):
    content = bytearray(VOICE.read_bytes())
    content[20:22] = b"\x77\x77"
    path.write_bytes(content)


def flac_cut_at(path, size):
    ffmpeg("-i", VOICE, path)
    path.write_bytes(path.read_bytes()[:size])


def flac_without_frames(path):
    ffmpeg("-i", VOICE, path)
    content = path.read_bytes()
    path.write_bytes(content[:8400] + bytes(len(content) - 8400))


@pytest.mark.parametrize(
    ("name", "make", "told"),
    [
        ("a.wav", lambda path: wav_with(path, 0), "damaged.*number of channels, wanted 1 to 64"),
        ("a.wav", lambda path: wav_with(path, 65535), "damaged.*number of channels, wanted 1 to 64"),
        ("a.wav", lambda path: wav_with(path, 300), "300 channels, wanted 1 to 64"),
        ("a.wav", wav_of_unknown_codec, "unknown codec"),
        ("a.flac", lambda path: flac_cut_at(path, 3000), "damaged: it ends within its header"),
        ("a.flac", flac_without_frames, "damaged"),
    ],
)
def test_a_damaged_sound_is_not_told_to_have_no_length(tmp_path, name, make, told):
    make(tmp_path / name)
    with pytest.raises(InputError, match=told) as refused:
        decoded(tmp_path / name)
    assert "zero length" not in str(refused.value) and "0x" not in str(refused.value)


def test_a_film_of_an_unknown_codec_is_refused(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "color=s=32x32:r=25:d=1", "-c:v", "libx264", tmp_path / "a.mp4")
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(content.replace(b"avc1\0\0\0\0", b"qqqq\0\0\0\0"))
    for read in (probe_video, lambda path: next(read_video(path))):
        with pytest.raises(InputError, match="not one frame of it can be decoded"):
            read(tmp_path / "a.mp4")


@pytest.mark.parametrize("duration_s", [1e300, 1.7e308, 10_000])
def test_a_duration_beyond_the_end_is_all_of_it(duration_s):
    assert len(decoded(VOICE, 3.0, duration_s)) == (VOICE_S - 3) * 16_000


def test_a_start_beyond_the_end_is_told(tmp_path):
    for start_s in (6.0, 1e18, 1.7e308):
        with pytest.raises(InputError, match="wanted a start before its end"):
            decoded(VOICE, start_s)


def test_a_picture_without_memory_or_files_is_no_broken_picture(tmp_path, monkeypatch):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")

    def fail(error):
        def raise_it(*arguments, **named):
            raise error

        monkeypatch.setattr(Image, "open", raise_it)

    fail(MemoryError())
    with pytest.raises(OutputError, match="too little memory"):
        read_image(tmp_path / "a.png")
    fail(OSError(24, "Too many open files"))
    with pytest.raises(OSError, match="Too many"):
        read_image(tmp_path / "a.png")
    fail(EOFError())
    with pytest.raises(InputError, match=r"broken or truncated picture \(EOFError\)"):
        read_image(tmp_path / "a.png")


# The program


@pytest.mark.parametrize(
    ("program", "told"),
    [("/nope", "cannot be started"), ("/bin/false", "does not work"), ("/bin/true", "does not work")],
)
def test_an_ffmpeg_that_does_not_work_is_named_with_its_variable(monkeypatch, tmp_path, program, told):
    ffmpeg("-f", "lavfi", "-i", "color=s=32x32:r=25:d=1", tmp_path / "a.mp4")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", program)
    for read, path in ((read_sound, VOICE), (read_video, tmp_path / "a.mp4")):
        with pytest.raises(OutputError, match=f"'{program}', which IMAGEIO_FFMPEG_EXE names, {told}"):
            list(read(path))


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for Ghostscript")
def test_a_picture_that_is_a_program_is_given_to_nobody(tmp_path, monkeypatch):
    """Pillow would hand PostScript to Ghostscript, whatever the file's name."""
    Image.new("RGB", (99, 99)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\necho 9\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(InputError, match="not a picture that can be read"):
        read_image(tmp_path / "a.png")
    assert not (tmp_path / "ran").exists()
