"""Sound in: every common kind of file, plain words for the rest, and a mel that can be fed in pieces."""

import stat
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
import torch

from kdtalker.audio.blocks import BlockEncoder
from kdtalker.audio.mel import LEVEL_FLOOR, log_mel, track_level
from kdtalker.core.errors import InputError
from kdtalker.core.rates import frame_count
from kdtalker.media import ffmpeg as ffmpeg_process
from kdtalker.media.sound import read_sound

VOICE = Path(__file__).parents[2] / "examples" / "austen_0890.wav"


def ffmpeg(*arguments):
    program = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([program, "-v", "error", "-nostdin", "-y", *map(str, arguments)], check=True, timeout=60)


def decoded(path):
    return np.concatenate(list(read_sound(path)))


@pytest.fixture(scope="module")
def voice():
    samples, _ = soundfile.read(VOICE, dtype="float32")
    return samples


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


def test_a_16_khz_wav_comes_through_unchanged(voice):
    np.testing.assert_array_equal(decoded(VOICE), voice)


def test_it_comes_in_chunks_of_at_most_a_second():
    chunks = list(read_sound(VOICE))
    assert len(chunks) > 3
    assert all(chunk.ndim == 1 and chunk.dtype == np.float32 and 0 < len(chunk) <= 16_000 for chunk in chunks)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("low.wav", ["-ar", "8000"]),
        ("high.wav", ["-ar", "48000", "-ac", "2"]),
        ("surround.wav", ["-ac", "6"]),
        ("float.wav", ["-c:a", "pcm_f32le", "-ar", "44100"]),
        ("voice.mp3", []),
        ("voice.m4a", ["-c:a", "aac"]),
        ("voice.ogg", ["-c:a", "libvorbis"]),
        ("voice.flac", ["-c:a", "flac"]),
        ("voice.webm", ["-c:a", "libopus"]),
    ],
)
def test_other_rates_channels_and_codecs_are_the_same_voice(tmp_path, voice, name, options):
    ffmpeg("-i", VOICE, *options, tmp_path / name)
    samples = decoded(tmp_path / name)
    assert abs(len(samples) - len(voice)) < 0.03 * 16_000
    length = min(len(samples), len(voice))
    assert np.corrcoef(samples[:length], voice[:length])[0, 1] > 0.9


def test_the_sound_of_a_film_that_starts_late_keeps_its_place(tmp_path, voice):
    film = tmp_path / "film.mp4"
    picture = ["-f", "lavfi", "-i", "color=s=32x32:r=25:d=6"]
    ffmpeg(*picture, "-itsoffset", "0.8", "-i", VOICE, "-c:v", "libx264", "-c:a", "aac", film)
    samples = decoded(film)
    assert np.abs(samples[:12_000]).max() < 0.01
    assert np.corrcoef(samples[12_800:92_800], voice[:80_000])[0, 1] > 0.9


@pytest.mark.parametrize("name", ['a b\'s "voice".wav', "голос 声音.wav", "-i.wav", "50%d.wav", "data:x.wav"])
def test_any_file_name_is_only_a_name(tmp_path, monkeypatch, voice, name):
    (tmp_path / name).write_bytes(VOICE.read_bytes())
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(decoded(Path(name)), voice)


def test_what_is_not_a_number_is_silence_and_what_is_too_loud_is_clipped(tmp_path):
    samples = np.full(16_000, 0.25, np.float32)
    samples[100:200], samples[300], samples[400:500], samples[600] = np.nan, np.inf, 7.0, -np.inf
    soundfile.write(tmp_path / "broken.wav", samples, 16_000, subtype="FLOAT")
    read = decoded(tmp_path / "broken.wav")
    assert (read[100:200] == 0).all() and (read[400:500] == 1).all()
    assert (read[300], read[600], read[700]) == (1, -1, 0.25)


def silent_film(path):
    ffmpeg("-f", "lavfi", "-i", "color=s=32x32:r=25:d=0.2", "-c:v", "libx264", path)


def no_samples(path):
    soundfile.write(path, np.zeros(0), 16_000)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("missing.wav", lambda path: None, "No such file"),
        ("folder.wav", Path.mkdir, "not a file"),
        ("empty.wav", Path.touch, "0 bytes"),
        ("text.wav", lambda path: path.write_text("these are words, not waves\n" * 50), "cannot be|can be decoded"),
        ("film.mp4", silent_film, "no sound track"),
        ("zero.wav", no_samples, "zero length"),
        ("cut.m4a", lambda path: path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500)), "can be decoded"),
    ],
)
def test_what_is_no_sound_is_refused_in_one_line(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(InputError, match=message) as refused:
        decoded(tmp_path / name)
    assert name in str(refused.value) and "\n" not in str(refused.value)


def test_a_name_with_a_zero_byte_is_refused():
    with pytest.raises(InputError, match="cannot be opened"):
        decoded(Path("voice\0.wav"))


def test_a_listener_who_leaves_early_leaves_no_ffmpeg_behind(processes):
    chunks = read_sound(VOICE)
    next(chunks)
    chunks.close()
    assert len(processes) == 1 and processes[0].poll() is not None


def fake_ffmpeg(folder, monkeypatch, script):
    program = folder / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))


def test_a_decoder_with_much_to_complain_about_does_not_block(tmp_path, monkeypatch):
    complaints = "head -c 1000000 /dev/zero | tr '\\0' 'x' | fold -w 100 >&2"
    fake_ffmpeg(tmp_path, monkeypatch, f"{complaints}; head -c 64000 /dev/zero")
    assert len(decoded(VOICE)) == 16_000


def test_a_decoder_that_fails_on_the_way_is_an_error_that_says_where(tmp_path, monkeypatch):
    fake_ffmpeg(tmp_path, monkeypatch, "head -c 96000 /dev/zero; echo 'disk on fire' >&2; exit 1")
    with pytest.raises(InputError, match=r"breaks off after 1\.5 s of sound \(disk on fire\)"):
        decoded(VOICE)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 1), (639, 1), (640, 1), (641, 2), (16_000, 25)])
def test_a_begun_frame_counts(samples, frames):
    assert frame_count(samples) == frames


@pytest.fixture(scope="module")
def filters():
    import librosa

    return librosa.filters.mel(sr=16_000, n_fft=400, n_mels=80)


class MelEncoder(BlockEncoder[None]):
    """The log-mel itself as features: four columns of 80 bands a frame."""

    feature_size, block_frames, left_samples, right_samples = 320, 16, 200, 40

    def __init__(self, filters):
        self.filters = filters

    def start_carry(self):
        return None

    def encode_block(self, carry, samples, block):
        return log_mel(samples, self.filters).T.reshape(block.frames, -1), None


def mel_in_pieces(samples, size, filters):
    encoder, parts = MelEncoder(filters), []
    state = encoder.start()
    for start in range(0, len(samples), size):
        found, state = encoder.encode(state, samples[start : start + size])
        parts.append(found.reshape(-1, 80))
    return np.concatenate(parts).T


def test_the_mel_in_pieces_is_that_of_the_whole_by_torch(voice, filters):
    samples = torch.tensor(voice, dtype=torch.float64)  # in float32 its rounding shows in the quietest bands
    window = torch.hann_window(400, dtype=torch.float64)
    whole = torch.stft(samples, 400, 160, window=window, pad_mode="constant", return_complex=True)
    power = torch.tensor(filters, dtype=torch.float64) @ whole.abs().square()
    expected = power.clamp(min=1e-10).log10().numpy()
    ours = mel_in_pieces(voice, 3_001, filters)
    assert ours.shape[1] > 400
    np.testing.assert_allclose(ours, expected[:, : ours.shape[1]], rtol=0, atol=1e-5)


def test_mel_column_c_is_centred_at_sample_160_c(filters):
    click = np.zeros(40_000, np.float32)
    click[160 * 37] = 1
    assert mel_in_pieces(click, 999, filters).mean(0).argmax() == 37


def test_the_level_rises_at_once_falls_slowly_and_has_a_floor(filters):
    sound = np.zeros(16_000 * 60, np.float32)
    sound[:16_000] = 0.5 * np.sin(np.arange(16_000) * 0.3)
    mel, levels = mel_in_pieces(sound, 16_000, filters), [LEVEL_FLOOR]
    for start in range(0, mel.shape[1], 64):
        levels.append(track_level(levels[-1], mel[:, start : start + 64]))
    assert levels[1] == pytest.approx(mel[:, :64].max())
    falls = -np.diff(levels[4:])
    assert falls.max() <= 0.05 + 1e-6 and falls[:10] == pytest.approx(0.05)
    assert levels[-1] == LEVEL_FLOOR == -1.5
