"""Published weight files: looked for, fetched from a hub on this machine, verified; and everything that goes wrong."""

import hashlib
import io
import os
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import fork
from toy_hub import serve

from kdtalker.apps import weights_command
from kdtalker.core.errors import InputError, OutputError
from kdtalker.weights import files as weight_files
from kdtalker.weights import find as finding
from kdtalker.weights import hub as fetching
from kdtalker.weights import table
from kdtalker.weights.pth import read_pth

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAME = "KDTalker.pth"  # the table knows neither its size nor its sha256
PLACE = "ChaolongYang/KDTalker/ckpts/KDTalker.pth"
FIRST, SECOND = ("KlingTeam/LivePortrait/liveportrait", "ChaolongYang/KDTalker/pretrained_weights/liveportrait")


def saved(value, **how):
    buffer = io.BytesIO()
    torch.save(value, buffer, **how)
    return buffer.getvalue()


GOOD = saved({"model": {"weight": torch.arange(100_000.0)}, "epoch": 3})
LONG = saved({"model": {"weight": torch.arange(4_000_000.0)}})  # 16 MB; the hub's library writes 10 MiB at a time
PIECE = 10 * 2**20


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def hub():
    with serve({PLACE: GOOD}) as (server, address):
        server.address = address
        yield server


@pytest.fixture
def place(tmp_path):
    """The folder that $KDTALKER_WEIGHTS names."""
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def environment(place, hub, **more):
    home = place.parent / "home"
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HF_HOME")
    inherited = {name: value for name, value in os.environ.items() if name not in names and "proxy" not in name.lower()}
    own = {"HOME": home, "XDG_CACHE_HOME": home / "cache", "KDTALKER_WEIGHTS": place, "HF_ENDPOINT": hub.address}
    return {**inherited, "PYTHONPATH": str(ROOT), **{name: str(value) for name, value in own.items()}, **more}


def command(*words):
    return [sys.executable, str(ROOT / "inference.py"), "weights", *words]


def call(place, hub, *words, env=(), **how):
    if not how and sys.platform == "linux":
        return fork(place.parent, ["weights", *words], environment(place, hub, **dict(env)))
    how = {"env": environment(place, hub, **dict(env)), "cwd": place.parent, "timeout": 100, **how}
    return subprocess.run(command(*words), check=False, capture_output=True, text=True, **how)


def assert_fails(done, code, *told):
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr, done.stderr
    assert all(text in done.stderr for text in told), done.stderr


def files_in(place):
    return {path.name: path.read_bytes() for path in place.iterdir()}


def assert_fetched(place, content=GOOD):
    """The file and the note of its sha256 are there, nothing else."""
    assert files_in(place).keys() == {NAME, f"{NAME}.sha256"}
    assert (place / NAME).read_bytes() == content
    assert (place / f"{NAME}.sha256").read_text() == f"{sha256(content)}  {NAME}\n"


# --- fetching -------------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_once_from_a_mirror_and_verified_offline(place, hub):
    done = call(place, hub, "get", NAME, env={"HF_ENDPOINT": f"{hub.address}/mirror"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{NAME}: sha256 as the hub says; licence: code CC-BY-NC-4.0 by its README, ")
    assert done.stdout.endswith(f": {place / NAME}\n")
    assert_fetched(place)
    assert hub.requests[0] == ("HEAD", f"/mirror/{PLACE.replace('ckpts', 'resolve/main/ckpts')}", None)
    assert hub.loads() == [None]

    asked = len(hub.requests)
    again = call(place, hub, "get", NAME, env={"HF_HUB_OFFLINE": "1"})
    assert (again.returncode, again.stdout) == (0, f"{NAME}: already there: {place / NAME}\n")
    verified = call(place, hub, "verify", NAME)
    assert (verified.returncode, verified.stdout) == (
        0,
        f"{NAME}: good, sha256 as when it was fetched: {place / NAME}\n",
    )
    assert len(hub.requests) == asked


def test_a_cut_connection_is_taken_up_again(place, hub):
    hub.files[PLACE], hub.cuts = LONG, [PIECE + 100_000]
    done = call(place, hub, "get", NAME, env={"HF_TOKEN": "hf_secret"})
    assert (done.returncode, done.stderr) == (0, "")
    assert hub.loads() == [None, f"bytes={PIECE}-"]
    assert_fetched(place, LONG)
    address = f"/{PLACE.replace('ckpts', 'resolve/main/ckpts')}"  # the other host gets no token
    assert hub.tokens == [(address, "Bearer hf_secret")] * 3


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_download_given_up_goes_on_with_the_next_call(place, hub, knows_ranges):
    hub.files[PLACE], hub.cuts, hub.knows_ranges = LONG, [PIECE + 100_000, None, None], knows_ranges
    kept = f"answers 503; the first {PIECE:,} bytes are kept, the same command goes on from there)"
    assert_fails(call(place, hub, "get", NAME), 1, kept)
    assert [len(content) for content in files_in(place).values()] == [PIECE]
    done = call(place, hub, "get", NAME)
    assert (done.returncode, done.stderr) == (0, "")
    assert hub.loads() == [None, *[f"bytes={PIECE}-"] * 3]
    assert_fetched(place, LONG)


def test_ctrl_c_ends_in_130_and_keeps_the_beginning_only(place, hub):
    hub.files[PLACE], hub.pause_s = LONG, 0.01
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    hears = {"start_new_session": True, "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = subprocess.Popen(command("get", NAME), env=environment(place, hub), **hears, **pipes)
    deadline = time.monotonic() + 60
    while sum(map(len, files_in(place).values())) < PIECE and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, ""), stderr
    assert stderr == "kdtalker: interrupted; the same command goes on from where it stopped.\n"
    ((name, content),) = files_in(place).items()
    assert re.fullmatch(rf"\.{NAME}\.[0-9a-f]{{16}}\.part", name) and content == LONG[:PIECE]


def test_two_processes_at_once_load_once(place, hub):
    hub.pause_s = 0.1
    both = [subprocess.Popen(command("get", NAME), env=environment(place, hub)) for _ in range(2)]
    assert [process.wait(timeout=100) for process in both] == [0, 0]
    assert hub.loads() == [None]
    assert_fetched(place)


def test_the_second_source_helps_where_the_first_has_not_the_file_of_the_table(place, hub):
    name = "motion_extractor.pth"
    good = saved({"detector.fc_kp.weight": torch.ones(3)})
    hub.files = {f"{FIRST}/base_models/{name}": saved({"other": 1}), f"{SECOND}/base_models/{name}": good}
    done = call(place, hub, "get", name, "--weights", str(place / "new" / "folder"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (place / "new" / "folder" / name).read_bytes() == good


def test_without_names_what_the_published_engine_needs_is_fetched(monkeypatch, tmp_path):
    fetched = []
    monkeypatch.setattr(fetching, "fetch", lambda weight, folder: fetched.append(weight.name) or "good")
    told = weights_command.run(["get", "--weights", str(tmp_path)])
    published = [row.name for row in table.TABLE if row.published]
    assert fetched == [name for name in published if name not in table.BY_NAME]
    assert [line.partition(":")[0] for line in told.splitlines()] == fetched
    weights_command.run(["get", *table.BY_NAME, "--weights", str(tmp_path)])
    assert sorted(fetched) == sorted(published)


# --- what goes wrong while fetching: exit 1, and nothing is left behind --------------------------------------------


def test_wrong_bytes_are_refused(place, hub):
    hub.etag[PLACE] = "0" * 64
    (place / NAME).write_bytes(b"what was there")
    (place / f"{NAME}.sha256").write_text("1" * 64)
    before = files_in(place)
    assert_fails(call(place, hub, "get", NAME), 1, f"'{NAME}' could not be fetched", "wrong bytes arrived (sha256)")
    assert files_in(place) == before


def test_another_file_than_the_tables_is_taken_with_a_warning_where_no_source_has_that_one(place, hub):
    """The second source says that it has the table's file and sends another; what the first one sends is its own."""
    name, good = "spade_generator.pth", saved({"fc.weight": torch.ones(2)})
    first, second = (f"{folder}/base_models/{name}" for folder in (FIRST, SECOND))
    hub.files, hub.etag = {first: good, second: GOOD}, {second: table.find_row(name).sha256}
    done = call(place, hub, "get", name)
    assert done.returncode == 0 and done.stdout.startswith(f"{name}: sha256 as the hub says; licence: MIT: ")
    differs = f"its sha256 is {sha256(good)}, expected was {table.find_row(name).sha256}."
    assert done.stderr == f"kdtalker: note: '{name}' was fetched, though it is another file than expected: {differs}\n"
    assert [path for method, path, _ in hub.requests if method == "GET" and "cdn" in path] == [
        f"/cdn/{second}",
        f"/cdn/{first}",
    ]
    assert files_in(place) == {name: good, f"{name}.sha256": f"{sha256(good)}  {name}\n".encode()}
    again = call(place, hub, "verify", name)
    assert (again.stdout, again.stderr) == (f"{name}: good, sha256 as when it was fetched: {place / name}\n", "")


def test_where_one_file_cannot_be_had_the_others_are_fetched_and_it_is_told_how_to_carry_it_over(place, hub):
    other = "motion_extractor.pth"
    hub.files[f"{SECOND}/base_models/{other}"] = saved({"detector.fc_kp.weight": torch.ones(3)})
    dead = {"https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1,localhost"}
    done = call(place, hub, "get", "norm.npz", other, "wav2lip.pth", NAME, env=dead)
    by_hand = [
        f"load https://raw.githubusercontent.com/chaolongy/KDTalker/main/dataset_process/norm.npz by hand and put it "
        f"into '{place}' as 'norm.npz'",
        f"load https://huggingface.co/ChaolongYang/KDTalker/resolve/main/ckpts/wav2lip.pth by hand and put it into "
        f"'{place}' as 'wav2lip.pth'.",
    ]
    assert_fails(
        done, 1, "2 of 4 files are lacking, the other 2 are there: 'norm.npz' could not be fetched (", *by_hand
    )
    assert files_in(place).keys() == {name for file in (other, NAME) for name in (file, f"{file}.sha256")}


def small_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_no_space(place, hub):
    told = f"'{NAME}' could not be written into '{place}': there is no space left for it."
    assert_fails(call(place, hub, "get", NAME, preexec_fn=small_disk), 1, told)
    assert files_in(place) == {}
    hub.size[PLACE] = 1 << 60
    asked = len(hub.loads())
    assert_fails(call(place, hub, "get", NAME), 1, told)
    assert files_in(place) == {} and len(hub.loads()) == asked


def test_no_folder_can_be_made(place, hub):
    (place / "file").touch()
    done = call(place, hub, "get", NAME, "--weights", str(place / "file"))
    assert_fails(done, 1, f"'{NAME}' could not be written into '{place / 'file'}'")


@pytest.mark.parametrize(
    ("env", "code", "told"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, 1, "127.0.0.1:9 cannot be reached"),
        ({"HF_HUB_OFFLINE": "1"}, 2, "HF_HUB_OFFLINE says to stay off the network; unset it."),
    ],
    ids=["unreachable", "offline"],
)
def test_no_network(place, hub, env, code, told):
    assert_fails(call(place, hub, "get", NAME, env=env), code, f"'{NAME}'", told)
    assert hub.requests == [] and files_in(place) == {}


def test_a_hub_without_the_file(place, hub):
    hub.files.clear()
    assert_fails(call(place, hub, "get", NAME), 1, f"huggingface.co/{PLACE}: 127.0.0.1:", " answers 404)")
    assert files_in(place) == {}


@pytest.mark.parametrize("good", [True, False])
def test_what_is_not_on_the_hub_is_checked_by_its_contents(tmp_path, hub, monkeypatch, good):
    parts = ("scale", "yaw", "pitch", "roll", "t", "exp", "kp")
    values = {f"{part}_{kind}": np.ones(3) for part in parts for kind in ("mean", "std")}
    if not good:
        values["kp_std"] = np.array([1, np.nan])
    buffer = io.BytesIO()
    np.savez(buffer, **values)
    hub.files = {"chaolongy/KDTalker/dataset_process/norm.npz": buffer.getvalue()}
    monkeypatch.setattr("kdtalker.weights.spec.GITHUB", hub.address)
    monkeypatch.setenv("NO_PROXY", "*")
    # This server sends on from where GitHub answers itself; both are followed.
    if good:
        assert "no sha256 is published" in fetching.fetch(table.find_row("norm.npz"), tmp_path)
        assert finding.find("norm.npz", tmp_path).read_bytes() == buffer.getvalue()
    else:
        with pytest.raises(OutputError, match=r"'norm.npz' holds .*, wanted kp_std; it is another file"):
            fetching.fetch(table.find_row("norm.npz"), tmp_path)
        assert files_in(tmp_path) == {}


# --- looking and verifying ------------------------------------------------------------------------------------------


def test_the_first_place_that_has_the_file_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setenv("KDTALKER_WEIGHTS", "named")
    for place in ("cache/kdtalker", "weights/ckpts", "named", "explicit"):
        name = "KDTalker.safetensors" if place == "named" else NAME
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / name).touch()
        assert finding.find(NAME, Path("explicit")) == Path(place, name)


def test_a_missing_file_tells_every_place_the_licence_and_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KDTALKER_WEIGHTS", "named")
    with pytest.raises(InputError) as caught:
        finding.find("wav2lip.pth", Path("explicit"))
    places = [tmp_path / place for place in ("explicit", "named", "weights", "cache/kdtalker")]
    told = ["research only", "`kdtalker weights get wav2lip.pth --weights explicit`", *map(str, places)]
    assert [text for text in told if text not in str(caught.value)] == []


def test_files_go_where_they_are_looked_for_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KDTALKER_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert weight_files.download_folder() == Path("cache/kdtalker")
    (tmp_path / "weights").mkdir()
    assert weight_files.download_folder() == Path("weights")
    monkeypatch.setenv("KDTALKER_WEIGHTS", "named")
    assert weight_files.download_folder() == Path("named")
    assert weight_files.download_folder(Path("explicit")) == Path("explicit")


def test_another_published_file_than_expected_is_used_with_one_warning(tmp_path, monkeypatch, caplog):
    known = replace(table.find_row("wav2lip.pth"), sha256=sha256(GOOD))
    monkeypatch.setattr(table, "TABLE", (known, table.find_row(NAME)))
    path, other = tmp_path / known.name, tmp_path / NAME
    path.write_bytes(GOOD)
    other.write_bytes(GOOD)
    assert finding.find(known.name, tmp_path) == path and finding.find(NAME, tmp_path) == other
    assert caplog.messages == []
    path.write_bytes(LONG)
    (tmp_path / f"{NAME}.sha256").write_text("1" * 64)
    for _ in range(2):
        assert finding.find(known.name, tmp_path) == path and finding.find(NAME, tmp_path) == other
    assert caplog.messages == [
        f"'{path}' is used, though it is another file than expected: its sha256 is {sha256(LONG)}, expected was "
        f"{sha256(GOOD)}.",
        f"'{other}' is used, though it is another file than expected: its sha256 is {sha256(GOOD)}, expected was "
        f"{'1' * 64}.",
    ]
    path.write_bytes(GOOD[:1000])  # half a download: found with a warning, refused where it is read
    with pytest.raises(InputError, match="wav2lip.pth' cannot be read as a .pth file, it is damaged"):
        read_pth(finding.find(known.name, tmp_path))


def test_a_file_of_the_package_is_never_another(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(finding, "PACKAGE", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mesh_motion.safetensors").write_bytes(b"x" * table.find_row("mesh_motion.safetensors").bytes)
    with pytest.raises(InputError, match=r"not those of this version \(sha256\): install kdtalker again"):
        finding.find("mesh_motion.safetensors")
    assert caplog.messages == []


def test_a_converted_file_comes_before_the_refused_one(tmp_path):
    for name in (NAME, "ckpts/wav2lip.pth"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        assert finding.find(path.name, tmp_path) == path
        path.with_suffix(".safetensors").touch()
        assert finding.find(path.name, tmp_path) == path.with_suffix(".safetensors")


def test_list_tells_of_every_file_without_the_network(place, hub):
    done = call(place, hub, "list")
    assert (done.returncode, done.stderr, hub.requests) == (0, "", [])
    for row in table.TABLE:
        assert (
            f"{row.name}: " in done.stdout and row.purpose in done.stdout and f"licence: {row.licence}" in done.stdout
        )
        assert row.sha256 is None or row.sha256 in done.stdout
        assert all(f"from {source.url}\n" in done.stdout for source in row.published)


def test_verify_tells_of_what_is_there_and_fails_for_what_is_damaged(place, hub):
    done = call(place, hub, "verify")
    assert done.returncode == 0
    assert done.stdout.count(": good, sha256 as in the table: ") == sum(not row.published for row in table.TABLE)
    assert done.stdout.count(": not here\n") == sum(bool(row.published) for row in table.TABLE)
    (place / "wav2lip.pth").write_bytes(saved({"state_dict": {}}))
    done = call(place, hub, "verify", "wav2lip.pth")
    assert (done.returncode, done.stderr) == (0, "")
    content = (place / "wav2lip.pth").read_bytes()
    assert f"another file than expected, used with a warning (its sha256 is {sha256(content)}, expected" in done.stdout
    (place / "wav2lip.pth").write_bytes(b"half")
    (place / NAME).write_bytes(GOOD)
    (place / f"{NAME}.sha256").write_text("1" * 64)
    (place / "norm.npz").write_bytes(b"<!doctype html>")
    (place / "warping_module.safetensors").write_bytes(b"half")
    told = (
        f"4 of {len(table.TABLE)} weight files failed",
        "wav2lip.pth' cannot be read as a .pth file",
        "norm.npz' cannot be read as .npz",
        "warping_module.safetensors' cannot be read as a model, it is truncated",
        f"{NAME}' are not those once fetched (its sha256 is {sha256(GOOD)}, expected was {'1' * 64})",
    )
    assert_fails(call(place, hub, "verify"), 2, *told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "action"),
        (("fetch",), "'fetch'"),
        (("get", "other.pth"), "'other.pth', known are face_detection"),
        (("verify", "kdtalker.pt"), "6726825d.pth. Did you mean 'KDTalker.pth'?"),
        (("convert",), "takes FILE.pth"),
        (("convert", "a.pth", "b.safetensors", "c"), "takes FILE.pth"),
        (("convert", "none.pth"), "There is no file 'none.pth' to convert."),
        (("verify", "norm.npz"), "`kdtalker weights get norm.npz` fetches it"),
        (("list", "--weights", "none"), "no folder 'none'"),
    ],
)
def test_wrong_words_end_in_2(place, hub, words, told):
    assert_fails(call(place, hub, *words), 2, told)
