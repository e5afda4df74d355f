"""What strangers upload: known by its content, refused in one sentence, never believed about its own size."""

import io
import resource
import struct
import wave
import zlib

import cv2
import numpy as np
import pytest
import toy
from test_cli import write_film, write_wav

from kdtalker.apps.uploads import UploadLimits, copy_film, copy_sound, read_picture
from kdtalker.core.errors import InputError, OutputError
from kdtalker.media.sound import read_sound
from kdtalker.media.video import probe_video, read_video

LIMITS = UploadLimits(voice_s=2, picture_megapixels=1, file_megabytes=3)


def png_of_nothing(side):
    """A valid header that promises side x side pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))


def wav_claiming(hours, samples):
    """A sound whose header claims to last that long; 0: what it lasts."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    claimed = min(hours * 3600 * 32_000, 2**32 - 100) or 2 * len(samples)
    honest = content.getvalue()
    return honest[:4] + struct.pack("<I", claimed + 36) + honest[8:40] + struct.pack("<I", claimed) + honest[44:]


PICTURE = cv2.imencode(".png", toy.picture())[1].tobytes()
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'
BAD_PICTURES = {
    "empty": (b"", "empty"),
    "text": (b"only words", "not a picture"),
    "cut short": (PICTURE[: len(PICTURE) // 2], "broken"),
    "svg with script": (SVG, "not a picture"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    "a page behind a gif's name": (b"GIF89a<html><script>alert(1)</script></html>", "broken|not a picture"),
    "a bomb": (png_of_nothing(12_000), "144 megapixels"),
    "a bigger bomb": (png_of_nothing(20_000), "too large.*more than 179 megapixels, wanted at most"),
    "too many bytes": (PICTURE + b"\0" * 3_100_000, "wanted at most 3"),
    "a sound": (wav_claiming(0, toy.sound(0.1)), "not a picture"),
}
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{path}\n#EXT-X-ENDLIST\n"
BAD_SOUNDS = {
    "empty": (b"", "empty"),
    "text": (b"only words", "no sound"),
    "a picture": (PICTURE, "no sound"),
    "a playlist of another's file": (PLAYLIST, "This file is a playlist, which leads to other files; choose"),
    "a playlist behind an mp3 tag": (b"ID3\x04\0\0\0\0\0\0" + PLAYLIST, "no sound"),
    "a list of another's files": (b"ffconcat version 1.0\nfile '{path}'\n", "This file is a playlist"),
    "too many bytes": (b"RIFF" + b"\0" * 3_100_000, "wanted at most 3"),
    "too long": (wav_claiming(0, toy.sound(2.5)), "longer than 2 s"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_bad_pictures_are_refused_without_a_word_of_where_they_lie(tmp_path, name):
    content, told = BAD_PICTURES[name]
    path = tmp_path / "face.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        read_picture(path, LIMITS)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("name", BAD_SOUNDS)
def test_bad_sounds_are_refused_without_a_word_of_where_they_lie(tmp_path, name):
    content, told = BAD_SOUNDS[name]
    path, another = tmp_path / "voice.wav", tmp_path / "another.wav"
    write_wav(another, toy.sound(1.0))
    path.write_bytes(content.replace(b"{path}", str(another).encode()))
    with pytest.raises(InputError, match=told) as caught:
        copy_sound(path, tmp_path / "copy.wav", LIMITS)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("name", ["empty", "text", "a picture", "a playlist of another's file", "too many bytes"])
def test_bad_films_are_refused_without_a_word_of_where_they_lie(tmp_path, name):
    path, another = tmp_path / "head.mp4", tmp_path / "another.mp4"
    write_film(another, [toy.picture()] * 5)
    path.write_bytes(BAD_SOUNDS[name][0].replace(b"{path}", str(another).encode()))
    with pytest.raises(InputError, match="empty|There is no film|a playlist|wanted at most 3") as caught:
        copy_film(path, tmp_path / "copy.mp4", LIMITS, 1)
    assert str(tmp_path) not in str(caught.value)


def test_an_ffmpeg_that_does_not_work_is_no_fault_of_the_upload(tmp_path, monkeypatch):
    write_wav(tmp_path / "voice.wav", toy.sound(1.0))
    for program in ("/bin/false", "/bin/true", "/nope"):
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", program)
        with pytest.raises(OutputError, match=program):
            copy_sound(tmp_path / "voice.wav", tmp_path / "copy.wav", LIMITS)
        with pytest.raises(OutputError, match=program):
            copy_film(tmp_path / "voice.wav", tmp_path / "copy.mp4", LIMITS, 1)


def test_films_are_copied_small_and_no_longer_than_wanted(tmp_path):
    write_film(tmp_path / "film", [np.full((300, 900, 3), 8 * frame, np.uint8) for frame in range(25)], "-f", "mp4")
    copy_film(tmp_path / "film", tmp_path / "copy.mp4", LIMITS, 0.4)
    info = probe_video(tmp_path / "copy.mp4")
    assert (info.width, info.height, info.fps) == (640, 214, 25)
    light = [frame.mean() for frame in read_video(tmp_path / "copy.mp4")]
    assert np.allclose(light, 8 * np.arange(10), atol=4)
    with pytest.raises(InputError, match="at most 1 megapixels a frame"):
        write_film(tmp_path / "large", [np.zeros((1200, 1200, 3), np.uint8)] * 2, "-f", "mp4")
        copy_film(tmp_path / "large", tmp_path / "copy.mp4", UploadLimits(film_megapixels=1), 1)


def test_good_pictures_come_whole_under_any_name(tmp_path):
    (tmp_path / "face.txt").write_bytes(PICTURE)
    assert np.array_equal(read_picture(tmp_path / "face.txt", LIMITS), toy.picture()[..., ::-1])


def test_the_copy_of_a_sound_is_the_sound(tmp_path):
    write_wav(tmp_path / "voice.wav", toy.sound(1.0))
    assert copy_sound(tmp_path / "voice.wav", tmp_path / "copy.wav", LIMITS) == 1.0
    original, copy = (np.concatenate(list(read_sound(tmp_path / name))) for name in ("voice.wav", "copy.wav"))
    assert np.array_equal(original, copy)


def test_a_film_lends_its_sound(tmp_path):
    write_wav(tmp_path / "voice.wav", toy.sound(1.0))
    write_film(tmp_path / "film.mp4", [toy.picture()] * 25, "-i", str(tmp_path / "voice.wav"))
    assert copy_sound(tmp_path / "film.mp4", tmp_path / "copy.wav", LIMITS) == pytest.approx(1, abs=0.1)


def test_a_header_that_claims_ten_hours_is_not_believed(tmp_path):
    (tmp_path / "voice.wav").write_bytes(wav_claiming(10, toy.sound(1.0)))
    assert copy_sound(tmp_path / "voice.wav", tmp_path / "copy.wav", LIMITS) == 1.0


def test_a_hundred_bad_uploads_take_no_memory(tmp_path):
    def refuse(content, read, *arguments):
        (tmp_path / "upload").write_bytes(content)
        with pytest.raises(InputError):
            read(tmp_path / "upload", *arguments, LIMITS)

    def largest_mb():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    refuse(PICTURE[:1000], read_picture)
    before_mb = largest_mb()
    for number in range(100):
        content = list(BAD_PICTURES.values())[number % len(BAD_PICTURES)][0]
        refuse(content, read_picture)
    assert largest_mb() - before_mb < 50
