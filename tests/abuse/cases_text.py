"""Text that is to be spoken, and voices."""

from __future__ import annotations

from abuse.case import TOY_PROCESS, table
from abuse.places import file

PICTURE = ("--image", "face.png", "--output", "film.mp4", "--duration", "0.2")
NO_TEXT = "no text|at least a word|nothing"


def _say(text: str, *more: str) -> list[str]:
    return [*PICTURE, f"--text={text}", *more]


SPOKEN = table(
    "text",
    0,
    ("a word", _say("hello"), "5 frames", {"fast": True}),
    ("a dash first", _say("-hello"), "5 frames"),
    ("for a shell", _say("hello $(touch ran) `touch ran`; touch ran | touch ran > ran"), "5 frames"),
    ("in SSML", _say('<speak><audio src="/etc/passwd"/><prosody rate="10">hello</prosody></speak>'), "5 frames"),
    ("for espeak-ng", _say("[[h@'loU]] --help -f /etc/passwd"), "5 frames"),
    ("control characters and a word", _say("\x01\x02hello\x1b[31m\x07\r\n"), "5 frames"),
    ("emoji and a word", _say("hello 😀👩‍🚀"), "5 frames"),
    ("not in UTF-8", _say("hello \udcff"), "frames|UTF-8|text", {"code": (0, 2)}),
    ("right to left", _say("hello مرحبا שלום"), "5 frames"),
    ("2000 characters", _say("word " * 399 + "words"), "5 frames"),
    ("German", _say("Guten Tag", "--voice", "de"), "5 frames"),
    ("another person", _say("hello", "--voice", "en-us+f3"), "5 frames"),
)

SILENT = table(
    "text",
    2,
    ("nothing", _say(""), NO_TEXT),
    ("blanks", _say("  \t\n "), NO_TEXT, {"fast": True}),
    ("emoji alone", _say("😀👩‍🚀"), NO_TEXT),
    ("marks alone", _say("?!... --"), NO_TEXT),
    ("control characters alone", _say("\x01\x02\x1b\x07"), NO_TEXT),
    ("2001 characters", _say("word " * 400 + "w"), "2001 characters"),
    ("100 KB", _say("word " * 20_000), "characters"),
    ("a start beyond its end", [*PICTURE, "--text", "hello", "--start", "60"], "start|60 s"),
    within_s=5.0,
)

VOICES = table(
    "voices",
    2,
    ("unknown", _say("hello", "--voice", "xx"), r"^(?=.*'xx').{1,400}$", {"fast": True}),
    ("near en-gb", _say("hello", "--voice", "en-gbb"), r"^(?=.*\ben-gb\b).{1,400}$", {"fast": True}),
    ("near fr-fr", _say("hello", "--voice", "fr_fr"), r"^(?=.*\bfr-fr\b).{1,400}$"),
    ("upper case", _say("hello", "--voice", "EN-US"), r"^(?=.*\ben-us\b).{1,400}$"),
    ("a path", _say("hello", "--voice", "../../../etc/passwd"), "passwd"),
    ("a path behind +", _say("hello", "--voice", "en-us+../../x"), "en-us"),
    ("a person that is none", _say("hello", "--voice", "en-us+f9"), r"\+f9"),
    ("nothing", _say("hello", "--voice", ""), "voice"),
    ("an option", [*_say("hello"), "--voice=--help"], "--help"),
    ("10 KB", _say("hello", "--voice", "v" * 10_000), "voice"),
    ("of Kokoro, which is not here", _say("hello", "--voice", "af_heart"), "weights get|pip install"),
    ("of Kokoro, unknown", _say("hello", "--voice", "zz_nobody"), "zz_nobody|weights get|pip install"),
    within_s=5.0,
)

STUB = {"PYTHONPATH": "{folder}/stub:{root}", "PYTHONDONTWRITEBYTECODE": "1"}
EXTRA = table(
    "voices",
    2,
    ("without the extra", _say("hello"), "pip install", {
        "before": (file("stub/espeakng_loader.py", b"raise ImportError('not here')\n"),), "fast": True}),
    ("without the extra, Kokoro", _say("hello", "--voice", "af_heart"), "pip install|weights get", {
        "before": (file("stub/kokoro_onnx.py", b"raise ImportError('not here')\n"),)}),
    env=STUB,
    program=TOY_PROCESS,
)  # fmt: skip

BROKEN = table(
    "voices",
    1,
    ("a library that does not load", _say("hello"), "espeak", {
        "before": (file("stub/espeakng_loader.py", b"def get_library_path(): return '/nope.so'\n"
                        b"def get_data_path(): return '/nope'\n"),)}),
    env=STUB,
    program=TOY_PROCESS,
)  # fmt: skip

CASES = [*SPOKEN, *SILENT, *VOICES, *EXTRA, *BROKEN]
