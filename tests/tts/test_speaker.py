"""Text becomes speech: by espeak-ng for real, by Kokoro's package over a toy network, and the two doors to both."""

import base64
import io
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import toy
from test_cli import read_back

from kdtalker import InputError
from kdtalker.apps.cli import main
from kdtalker.core.rates import SAMPLE_RATE_HZ
from kdtalker.media.sound import read_sound
from kdtalker.tts.espeak import Espeak, espeak
from kdtalker.tts.kokoro import LANGUAGES, Kokoro, kokoro
from kdtalker.tts.line import DEFAULT_VOICE, MAX_CHARS, Line
from kdtalker.tts.speak import load_speaker, speak
from kdtalker.weights import table as weights

SENTENCE = "She had no wish to be told that it was late."
OTHERS = {
    "de": "Sie wollte nicht hören, dass es schon spät war.",
    "fr-fr": "Elle ne voulait pas entendre qu'il était tard.",
    "es": "No quería que le dijeran que era tarde.",
    "ru": "Она не хотела слышать, что уже поздно.",
    "cmn": "她不想听到已经很晚了。",
    "hi": "वह सुनना नहीं चाहती थी कि देर हो गई है।",
}
# A network with Kokoro's inputs (tokens, style, speed) that holds a level for every token; made with `onnx.helper`.
TOY_KOKORO = (
    "CAgSADqzAgocCgZ0b2tlbnMSAWEiBENhc3QqCQoCdG8YAaABAgoOCgFhCgFrEgFiIgNNdWwKCwoBYhIBYyIDU2luChQKAWMKA2NvbBIBZCIHUmVz"
    "aGFwZQoRCgFkCgNyZXASAWUiBFRpbGUKGQoBZQoEZmxhdBIFYXVkaW8iB1Jlc2hhcGUSA3RveSoNCAEQASIEpHC9PkIBayoWCAIQBzoL////////"
    "////AQFCA2NvbCoOCAIQBzoDAdwLQgNyZXAqFggBEAc6Cv///////////wFCBGZsYXRaGQoGdG9rZW5zEg8KDQgHEgkKAggBCgMSAW5aGAoFc3R5"
    "bGUSDwoNCAESCQoCCAEKAwiAAloTCgVzcGVlZBIKCggIARIECgIIAWIUCgVhdWRpbxILCgkIARIFCgMSAW1CBAoAEBE="
)


@pytest.fixture
def heard(tmp_path):
    """Speaks a line into a file and hears that as the pipeline does: samples at 16 kHz."""

    def heard(text, voice=DEFAULT_VOICE):
        speak(Line(text, voice), tmp_path / "spoken.wav")
        return np.concatenate(list(read_sound(tmp_path / "spoken.wav")))

    return heard


@pytest.fixture
def toy_kokoro(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    folder.mkdir()
    network, voices = (folder / name for name in weights.KOKORO)
    network.write_bytes(base64.b64decode(TOY_KOKORO))
    with voices.open("wb") as file:
        np.savez(file, af_one=np.zeros((510, 1, 256), np.float32), bm_two=np.ones((510, 1, 256), np.float32))
    monkeypatch.setenv("KDTALKER_WEIGHTS", str(folder))
    kokoro.cache_clear()
    yield folder
    kokoro.cache_clear()


def test_a_sentence_lasts_as_long_as_people_take_and_longer_text_lasts_longer(heard):
    short, sentence, twice = (len(heard(text)) / SAMPLE_RATE_HZ for text in ("No.", SENTENCE, f"{SENTENCE} {SENTENCE}"))
    words = len(SENTENCE.split())
    assert 0.2 < short < 1 and words / 4.5 < sentence < words / 2 and 1.8 * sentence < twice < 2.6 * sentence


def test_speech_differs_by_text_and_person_and_not_by_chance(heard):
    sentence, again, other = heard(SENTENCE), heard(SENTENCE), heard(SENTENCE.replace("late", "great"))
    assert np.array_equal(sentence, again) and not np.array_equal(sentence[: len(other)], other[: len(sentence)])
    assert not np.array_equal(sentence[:8000], heard(SENTENCE, "en-us+f3")[:8000])


def test_speech_is_loud_where_it_speaks_and_still_where_it_pauses(heard):
    loudness = [np.abs(piece).max() for piece in np.array_split(heard(f"{SENTENCE} {SENTENCE}"), 60)]
    assert 0.2 < max(loudness) <= 1 and min(loudness) < 0.02


@pytest.mark.parametrize("voice", OTHERS)
def test_other_languages_are_spoken_in_their_own_script(heard, voice):
    said = heard(OTHERS[voice], voice)
    assert 1 < len(said) / SAMPLE_RATE_HZ < 5 and np.abs(said).max() > 0.2


def test_voices_on_the_list_can_be_chosen_by_several_at_once():
    voices = espeak().voices()
    assert len(voices) > 100 and voices["en-us"] == "English (America)" and voices["de"] == "German"
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda name: espeak().synthesise(Line("1 2 3", name)), ["de", "fr-fr", "sw", "th"]))
    assert all(len(sound.samples) > sound.rate_hz / 2 and sound.samples.any() for sound in said)


@pytest.mark.parametrize(
    ("text", "voice", "told"),
    [
        ("", "en-us", "no text to say"),
        (" \n ?! \0", "en-us", "no text to say"),
        ("a" * (MAX_CHARS + 1), "en-us", f"has {MAX_CHARS + 1} characters, wanted at most {MAX_CHARS}"),
        ("Hello", "tlh", "There is no voice 'tlh'.*--voices"),
        ("Hello", "en-us+../../x", "There is no voice"),
        ("Hello", "en-us+f9", "There is no voice"),
        ("Hello", "", "There is no voice ''"),
    ],
)
def test_what_cannot_be_said_is_refused_in_a_sentence(tmp_path, text, voice, told):
    with pytest.raises(InputError, match=told):
        speak(Line(text, voice), tmp_path / "spoken.wav")
    assert list(tmp_path.iterdir()) == []


def test_text_is_only_text(heard):
    """No markup that reads files, no phonemes: what stands in the text is read out."""
    plain, marked = heard("one two"), heard('one <audio src="/etc/passwd"/> [[h@l@U]] two')
    assert len(marked) > 1.5 * len(plain)


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setitem(sys.modules, "kokoro_onnx", None)
    for load in (Espeak.load, Kokoro.load):
        with pytest.raises(InputError, match=r"pip install -e '\.\[tts\]'"):
            load()


def test_kokoros_voices_are_told_by_their_names_and_fetched_on_request(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kokoro.cache_clear()
    for voice in ("af_heart", "bm_george", "zf_xiaobei"):
        with pytest.raises(InputError, match="`kdtalker weights get kokoro-v1.0.onnx voices-v1.0.bin` fetches them"):
            load_speaker(voice)


def test_kokoro_speaks_over_its_package(toy_kokoro, heard):
    """The real package, its tokens and pauses, over a network that hums: 1500 samples a token at 24 kHz."""
    one, longer, other = heard("Hello there.", "af_one"), heard(SENTENCE, "af_one"), heard("Guten Tag.", "bm_two")
    assert 0.3 < len(one) / SAMPLE_RATE_HZ < len(longer) / SAMPLE_RATE_HZ < 10
    assert 0.5 < np.abs(one).max() <= 1 and len(other) > 0
    assert load_speaker("af_one").voices() == {"af_one": "Kokoro One (en-us)", "bm_two": "Kokoro Two (en-gb)"}
    assert set(LANGUAGES.values()) <= set(espeak().voices())
    with pytest.raises(InputError, match="Kokoro has no voice 'am_none'. Did you mean 'af_one'"):
        heard("Hello", "am_none")


def test_damaged_files_of_kokoro_end_in_one_sentence(toy_kokoro, heard):
    network, voices = (toy_kokoro / name for name in weights.KOKORO)
    good_network, good_voices = network.read_bytes(), voices.read_bytes()
    other = io.BytesIO()
    np.savez(other, af_one=np.zeros((510, 256), np.float32))
    fetched = "`kdtalker weights get kokoro-v1.0.onnx voices-v1.0.bin` fetches them again"
    damage = [
        (network, good_network[:200], f"kokoro-v1.0.onnx' cannot be read as Kokoro's network, .*; {fetched}"),
        (network, b"", f"kokoro-v1.0.onnx' cannot be read as Kokoro's network, .*; {fetched}"),
        (voices, good_voices[:-100], "voices-v1.0.bin' cannot be read as .npz, it is damaged"),
        (voices, b"PK" * 100, "voices-v1.0.bin' cannot be read as .npz, it is damaged"),
        (voices, good_voices.replace(bytes(99), bytes(98) + b"x", 1), "voices-v1.0.bin' cannot be read as .npz"),
        (voices, other.getvalue(), f"voices-v1.0.bin' holds another thing than a voice as 'af_one'; {fetched}"),
    ]
    for path, content, told in damage:
        network.write_bytes(good_network)
        voices.write_bytes(good_voices)
        path.write_bytes(content)
        kokoro.cache_clear()
        with pytest.raises(InputError, match=told) as caught:
            heard("Hello", "af_one")
        assert "\n" not in str(caught.value) and "pickle" not in str(caught.value)


def test_the_command_line_speaks(tmp_path, capfd):
    picture, film = tmp_path / "face.png", tmp_path / "film.mp4"
    write_picture(picture)
    told = ["--image", str(picture), "--output", str(film), "--text", SENTENCE, "--voice", "en-gb"]
    assert main(told, lambda job: toy.pipeline()) == 0
    frames, _, sound_s = read_back(film)
    assert frames / 25 == pytest.approx(sound_s, abs=0.05) and 2 < sound_s < 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.png", "film.mp4"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--text", "Hello", "--audio", "a.wav"], "not allowed with argument"),
        (["--text", "Hello", "--driving", "a.mp4"], "Exactly one of --audio, --text, --driving and --motion"),
        (["--voice", "de", "--audio", "a.wav"], "--voice was given without --text"),
        (["--text", " "], "no text to say"),
        (["--text", "Hello", "--voice", "nobody"], "no voice 'nobody'"),
    ],
)
def test_the_command_line_refuses(tmp_path, capfd, words, told):
    picture = tmp_path / "face.png"
    write_picture(picture)
    assert main(["--image", str(picture), "--output", str(tmp_path / "film.mp4"), *words]) == 2
    (line,) = toy.sentences(capfd.readouterr().err)
    assert told in line and not (tmp_path / "film.mp4").exists()


def write_picture(path):
    from PIL import Image

    Image.fromarray(toy.picture()).save(path)
