"""The page's named endpoint, its doors and its locks, asked through gradio_client over the toy engine."""

import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import page
import pytest
import toy
from gradio_client import Client, exceptions, handle_file
from test_cli import read_back, write_film, write_wav
from test_uploads import BAD_PICTURES, BAD_SOUNDS, LIMITS, PICTURE, wav_claiming

import app
from kdtalker import Motion
from kdtalker.apps.uploads import UploadLimits
from kdtalker.core.options import controls
from kdtalker.media.video import read_video

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with page.opened(tmp_path_factory.mktemp("visitors")) as address:
        yield address


@pytest.fixture
def inputs(tmp_path):
    cv2.imwrite(str(tmp_path / "face.png"), toy.picture()[..., ::-1])
    write_wav(tmp_path / "voice.wav", toy.sound(1.0))
    return tmp_path


def client(address, **how):
    return Client(address, verbose=False, analytics_enabled=False, **how)


def animate(address, inputs, picture="face.png", voice="voice.wav", **options):
    files = [handle_file(str(inputs / name)) for name in (picture, voice)]
    film, motion = client(address, download_files=str(inputs)).predict(*files, api_name="/animate", **options)
    return Path(film), Path(motion)


def status(address, path):
    try:
        with urllib.request.urlopen(address + path, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_animate_gives_film_and_motion(address, inputs):
    film, motion = animate(address, inputs, seed=3, head=1.5)
    frames, size, sound_s = read_back(film)
    assert (frames, size) == (25, (96, 80)) and abs(sound_s - 1) <= 0.04
    assert len(Motion.load(motion)) == 25


def test_options_reach_the_film_and_the_seed_repeats_it(address, inputs):
    one, again, other = (animate(address, inputs, seed=seed)[1] for seed in (1, 1, 2))
    assert Motion.load(one).vector().tolist() == Motion.load(again).vector().tolist()
    assert Motion.load(one).vector().tolist() != Motion.load(other).vector().tolist()


def test_the_endpoint_names_every_option_with_its_default(address):
    endpoints = client(address).view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/animate", "/animate_text"]
    options = {name: getattr(app.Options, name) for name, _, _ in controls()}
    for endpoint, voiced in (("/animate", ["voice"]), ("/animate_text", ["text", "voice"])):
        told = {row["parameter_name"]: row for row in endpoints[endpoint]["parameters"]}
        film = ["crop", "mark", "engine", "background", "background_picture", "pose_from"]
        assert list(told) == ["picture", *voiced, "face", *options, *film]
        assert {name: told[name]["parameter_default"] for name in options} == options


def test_background_and_leading_film_reach_the_film(address, inputs):
    cv2.imwrite(str(inputs / "lime.png"), np.full((9, 9, 3), (0, 255, 0), np.uint8))
    write_film(inputs / "head.mp4", [np.full((64, 64, 3), 50 + 10 * frame, np.uint8) for frame in range(10)])
    plain, _ = animate(address, inputs, mark=False)
    coloured, _ = animate(address, inputs, mark=False, background="lime")
    pictured, _ = animate(address, inputs, mark=False, background_picture=handle_file(str(inputs / "lime.png")))
    _, motion = animate(address, inputs, pose_from=handle_file(str(inputs / "head.mp4")))
    red, green = (next(read_video(coloured)).astype(int) - next(read_video(plain))).mean((0, 1))[:2]
    assert green > 20 > -20 > red
    assert np.abs(next(read_video(pictured)).astype(int) - next(read_video(coloured))).mean() < 1
    assert (np.diff(Motion.load(motion).pose[:9, 0]) > 0.1).all()
    with pytest.raises(exceptions.AppError, match="'greenish' is neither a picture nor a colour"):
        animate(address, inputs, background="greenish")


def test_animate_text_speaks(address, inputs):
    there, picture = client(address, download_files=str(inputs)), handle_file(str(inputs / "face.png"))
    films = [
        there.predict(picture, text, api_name="/animate_text", **voice)[0]
        for text, voice in (("Hello.", {}), ("She had no wish to be told that it was late.", {"voice": "en-gb"}))
    ]
    (short, _, short_s), (long, _, long_s) = map(read_back, map(Path, films))
    assert 0.3 < short_s < 1.5 and 2 < long_s < 5
    assert abs(short / 25 - short_s) <= 0.05 and abs(long / 25 - long_s) <= 0.05
    for text, voice, told in (("", "en-us", "no text"), ("a" * 2001, "en-us", "at most"), ("Hello", "tlh", "no voice")):
        with pytest.raises(exceptions.AppError, match=told):
            there.predict(picture, text, voice, api_name="/animate_text")


def test_the_published_engine_says_what_it_lacks(address, inputs, monkeypatch):
    monkeypatch.setattr("kdtalker.weights.find.locate", lambda weight, folder=None: None)
    with pytest.raises(exceptions.AppError, match="8 of the 8 files .* `kdtalker weights get KDTalker.pth norm.npz"):
        animate(address, inputs, engine="liveportrait")
    with pytest.raises(exceptions.AppError, match="engine|choices"):
        animate(address, inputs, engine="another")


@pytest.mark.parametrize(
    ("options", "told"),
    [({"seed": -1}, "minimum value 0"), ({"steps": 2.5}, "steps"), ({"head": 9}, "maximum value 2")],
)
def test_wrong_values_are_refused_with_a_sentence(address, inputs, options, told):
    with pytest.raises(exceptions.AppError, match=told):
        animate(address, inputs, **options)


def test_wrong_files_are_refused_without_the_servers_paths(address, inputs):
    (inputs / "text.png").write_text("only words")
    with pytest.raises(exceptions.AppError, match="not a picture") as caught:
        animate(address, inputs, picture="text.png")
    assert tempfile.gettempdir() not in str(caught.value)


def test_no_file_of_the_server_can_be_had(address, inputs):
    (inputs / "secret.txt").write_text("secret")
    wanted = [inputs / "secret.txt", ROOT / "app.py", ROOT / "pyproject.toml", Path("/etc/passwd")]
    for path in wanted:
        for way in ("/gradio_api/file=", "/file=", "/gradio_api/file=../../../../../../..", "/static/../../../.."):
            assert status(address, f"{way}{path}") in (403, 404), (way, path)


@pytest.mark.parametrize("name", ["picture", "voice"])
def test_a_path_that_was_never_uploaded_is_no_input(address, inputs, name):
    """What a visitor says is an upload must be one; asked without the client, which would upload it."""
    claimed = {"path": str(ROOT / "examples" / "grace_hopper.jpg"), "meta": {"_type": "gradio.FileData"}}
    data = [claimed if name == "picture" else None, claimed if name == "voice" else None]
    data += [1] + [getattr(app.Options, name) for name, _, _ in controls()] + [False, True, "mesh", "", None, None]
    body, kind = json.dumps({"data": data}).encode(), {"Content-Type": "application/json"}
    call = f"{address}gradio_api/call/animate"
    with urllib.request.urlopen(urllib.request.Request(call, body, kind), timeout=60) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{call}/{event}", timeout=60) as answer:
        told = answer.read().decode()
    assert "event: error" in told and "is no" not in told and "There is no" not in told, told


def test_four_visitors_at_once_each_get_their_own_film(address, inputs):
    def visit(number):
        folder = inputs / str(number)
        folder.mkdir()
        cv2.imwrite(str(folder / "face.png"), np.roll(toy.picture()[..., ::-1], 20 * number, axis=2) // (1 + number))
        write_wav(folder / "voice.wav", toy.sound(0.4 + 0.2 * number))
        film, _ = animate(address, folder, mark=False)
        return [frame.mean() for frame in read_video(film)]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(visit, range(4)))
    assert [len(brightness) for brightness in together] == [10, 15, 20, 25]
    brightness = [values[0] for values in together]
    assert all(one > 1.2 * next_one for one, next_one in zip(brightness, brightness[1:], strict=False)), brightness


def test_films_leave_nothing_in_the_temporary_folder(address, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    animate(address, inputs)
    (inputs / "text.png").write_text("only words")
    with pytest.raises(exceptions.AppError):
        animate(address, inputs, picture="text.png")
    assert list(tmp_path.glob("kdtalker-*")) == []


def test_who_stops_the_server_finds_nothing_of_its_visitors_left(tmp_path, inputs):
    """In the middle of a film too, as a service is stopped: by SIGTERM."""
    (tmp_path / "tmp").mkdir()
    write_wav(inputs / "long.wav", toy.sound(20.0))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = f"import app, page; app.TalkingPortraitPipeline.mesh = page.own; exit(app.main(['--port', '{port}']))"
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True) as server:
        try:
            address = server.stdout.readline().split()[-1]
            assert read_back(animate(address, inputs)[0])[0] == 25  # and its film can be had while it runs
            there = client(address)
            there.submit(*(handle_file(str(inputs / name)) for name in ("face.png", "long.wav")), api_name="/animate")
            waited_until = time.monotonic() + 30
            while not (begun := list((tmp_path / "tmp").rglob("*.part"))) and time.monotonic() < waited_until:
                time.sleep(0.05)
            server.terminate()
            assert begun and server.wait(timeout=30) == 143
        finally:
            server.kill()
    left = list((tmp_path / "tmp").rglob("*"))
    assert [path for path in left if path.is_file() or path.name.startswith("kdtalker")] == []


def upload(address, content):
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + content + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    return urllib.request.urlopen(urllib.request.Request(f"{address}gradio_api/upload", body, kind), timeout=30)


def test_what_was_uploaded_goes_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "SWEEP_S", 1)
    monkeypatch.setattr(app, "KEPT_S", 4)
    with page.opened(tmp_path) as address, upload(address, b"of a visitor") as answer:
        path = Path(json.load(answer)[0])
        assert path.read_bytes() == b"of a visitor"
        waited_until = time.monotonic() + 30
        while path.exists() and time.monotonic() < waited_until:
            time.sleep(0.1)
        assert not path.exists()


def test_more_than_the_allowed_size_is_refused_without_a_path(tmp_path):
    with page.opened(tmp_path, limits=UploadLimits(file_megabytes=1)) as address:
        before = set(tmp_path.rglob("*"))
        with pytest.raises(urllib.error.HTTPError) as caught:
            upload(address, bytes(2_000_000))
        told = caught.value.read().decode()
        assert caught.value.code == 413 and "exceeded maximum allowed size" in told and "/" not in told
        assert set(tmp_path.rglob("*")) == before


def test_many_bad_uploads_are_told_and_take_no_memory(tmp_path, inputs):
    """Cut short, of another kind, two kinds at once, bombs, scripts; and then a film is made as ever."""
    voice = wav_claiming(10, toy.sound(1.0))
    pictures = [content for content, _ in BAD_PICTURES.values() if len(content) < 1e6]
    pictures += [PICTURE[:length] for length in range(8, len(PICTURE) - 40, (len(PICTURE) - 48) // 8)]
    pictures += [b"GIF89a" + voice, b"\xff\xd8\xff\xe0" + PICTURE, b"%PDF-1.7\n" + PICTURE]
    sounds = [content for content, _ in BAD_SOUNDS.values() if len(content) < 1e5]
    sounds += [PICTURE + voice, *(voice[:length] for length in (*range(1, 44, 6), 44))]
    bad = [("picture", content) for content in pictures] + [("voice", content) for content in sounds]
    visitor = threading.local()  # a client reads one stream for all that it asks, which ends between two of them
    with page.opened(tmp_path / "visitors", limits=LIMITS) as address:

        def come():
            visitor.client = client(address, download_files=str(inputs))

        def refused(number):
            what, content = bad[number]
            (path := inputs / f"bad{number}").write_bytes(content)
            files = {"picture": inputs / "face.png", "voice": inputs / "voice.wav", what: path}
            with pytest.raises(exceptions.AppError) as caught:
                visitor.client.predict(*(handle_file(str(file)) for file in files.values()), api_name="/animate")
            return str(caught.value)

        come(), refused(0), refused(-1)
        before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        with ThreadPoolExecutor(4, initializer=come) as pool:
            told = list(pool.map(refused, range(len(bad))))
        grown_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mb
        assert len(told) >= 35 and all("wanted" in text or "choose" in text for text in told), told
        assert not any(folder in text for text in told for folder in (str(tmp_path), tempfile.gettempdir()))
        assert grown_mb < 50
        (inputs / "claims.wav").write_bytes(voice)
        assert read_back(animate(address, inputs, voice="claims.wav")[0])[0] == 25


def test_a_password_locks_the_page_and_its_endpoint(tmp_path, inputs):
    with page.opened(tmp_path / "visitors", password="open sesame") as address:
        assert status(address, "gradio_api/info") == 401
        with pytest.raises(Exception, match="Could not login"):
            client(address, auth=("anyone", "wrong"))
        film, _ = client(address, auth=("anyone", "open sesame"), download_files=str(inputs)).predict(
            handle_file(str(inputs / "face.png")), handle_file(str(inputs / "voice.wav")), api_name="/animate"
        )
        assert read_back(film)[0] == 25


def test_the_page_is_for_this_computer_alone_unless_told_otherwise():
    assert app._parse([]).host == "127.0.0.1"


def test_a_model_of_ones_own_must_be_there(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        app.main(["--checkpoint", str(tmp_path / "none.safetensors")])
    assert caught.value.code == 2 and "none.safetensors" in capsys.readouterr().err
