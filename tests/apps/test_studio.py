"""The studio behind the page, over the toy engine: films, marks, visitors who leave, engines that do not open."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from xml.etree import ElementTree

import av
import cv2
import numpy as np
import pytest
import toy
from test_cli import driving_frames, read_back, write_film, write_wav

from kdtalker import InputError, Motion, Options
from kdtalker.apps.chart import ROW, draw_chart, loudness
from kdtalker.apps.service import FilmService, Preview, Request, Result
from kdtalker.apps.uploads import UploadLimits
from kdtalker.apps.watermark import Watermark, draw_squares
from kdtalker.core.options import PRESETS
from kdtalker.core.protocols import Engine, Openings
from kdtalker.media.sound import read_sound
from kdtalker.media.video import read_video
from kdtalker.media.video_writer import TAG


@pytest.fixture
def inputs(tmp_path):
    cv2.imwrite(str(tmp_path / "face.png"), toy.picture()[..., ::-1])
    write_wav(tmp_path / "voice.wav", toy.sound(1.0))
    (tmp_path / "folder").mkdir()
    return tmp_path


def request(inputs, **how):
    return Request(inputs / "face.png", inputs / "voice.wav", **{"options": Options(), **how})


def make(inputs, **how):
    return list(FilmService(toy.pipeline).film(request(inputs, **how), inputs / "folder"))


def test_every_frame_is_shown_and_the_film_comes_last(inputs):
    *steps, result = make(inputs)
    assert [step.done for step in steps] == list(range(1, 26)) and {step.total for step in steps} == {25}
    assert all(isinstance(step, Preview) and step.left_s >= 0 for step in steps) and steps[-1].left_s == 0
    assert isinstance(result, Result) and result.film_s == 1.0
    frames, size, sound_s = read_back(result.film)
    assert (frames, size) == (25, (96, 80)) and abs(sound_s - 1) <= 0.04
    assert len(Motion.load(result.motion)) == 25


def test_the_film_is_the_one_that_the_pipeline_makes(inputs):
    *steps, _ = make(inputs, options=Options(seed=5, head=1.5), mark=False)
    pipeline = toy.pipeline()
    portrait = pipeline.portrait(toy.picture())
    frames = pipeline.animate(portrait, read_sound(inputs / "voice.wav"), Options(seed=5, head=1.5))
    assert all(np.array_equal(step.frame, frame) for step, frame in zip(steps, frames, strict=True))


def test_the_mark_is_seen_and_can_be_switched_off(inputs):
    marked, plain = make(inputs)[0].frame, make(inputs, mark=False)[0].frame
    changed = (marked != plain).any(-1)
    assert 20 < changed.sum() < changed.size / 4 and not changed[: len(changed) // 2].any()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (512, 512), (600, 512), (1080, 1920), (1920, 500)])
def test_the_mark_fits_and_is_read_on_black_and_on_white(height, width):
    for ground in (0, 255):
        frame = np.full((height, width, 3), ground, np.uint8)
        difference = np.abs(Watermark(height, width).on(frame).astype(int) - ground)
        assert difference.max() > 120
        columns = np.flatnonzero(difference.any((0, 2)))
        assert columns[0] > 0 and columns[-1] < width - 1
        assert not np.may_share_memory(frame, Watermark(height, width).on(frame))


def test_every_film_says_in_its_file_that_it_was_made(inputs):
    for mark in (True, False):
        with av.open(str(make(inputs, mark=mark)[-1].film)) as film:
            assert film.metadata["comment"] == TAG


def test_who_leaves_in_the_middle_leaves_no_film(inputs):
    steps = FilmService(toy.pipeline).film(request(inputs), inputs / "folder")
    next(steps)
    steps.close()
    assert [path.name for path in (inputs / "folder").iterdir()] == ["voice.wav"]


def test_two_visitors_at_once_get_their_own_films(inputs):
    service, alone = FilmService(toy.pipeline), {}
    requests = {name: request(inputs, options=Options(seed=name)) for name in (1, 2)}
    for name in requests:
        (inputs / str(name)).mkdir()
        alone[name] = make(inputs, options=Options(seed=name))[-1].film.read_bytes()
    lines = [service.film(requests[name], inputs / str(name)) for name in requests]
    results = list(zip(*lines, strict=True))[-1]
    assert [result.film.read_bytes() for result in results] == [alone[1], alone[2]] and alone[1] != alone[2]
    assert list(read_video(results[0].film))


@pytest.mark.parametrize("missing", ["picture", "voice"])
def test_what_is_missing_is_asked_for(inputs, missing):
    told = {"picture": "portrait", "voice": "voice"}[missing]
    chosen = {"picture": inputs / "face.png", "voice": inputs / "voice.wav", missing: None}
    with pytest.raises(InputError, match=f"There is no {told} yet"):
        list(FilmService(toy.pipeline).film(Request(**chosen, options=Options()), inputs / "folder"))


def test_a_voice_is_not_longer_than_allowed(inputs):
    service = FilmService(toy.pipeline, UploadLimits(voice_s=0))
    with pytest.raises(InputError, match="longer than 0 s"):
        list(service.film(request(inputs), inputs / "folder"))


def test_an_engine_that_does_not_open_says_why_to_everybody(inputs):
    def load():
        raise InputError("The weights are missing; install the package again.")

    service = FilmService(load)
    for _ in range(2):
        with pytest.raises(InputError, match="weights are missing"):
            list(service.film(request(inputs), inputs / "folder"))


def test_the_engine_is_tried_before_the_first_visitor_comes(inputs):
    drawn = []

    class Watched(toy.ToyRenderer):
        def render(self, source, motion):
            drawn.append(len(motion))
            yield from super().render(source, motion)

    service = FilmService(lambda: toy.pipeline(toy.ToyEngine(Watched())), warm_up=inputs / "face.png")
    service.faces(inputs / "face.png")  # waits for the engine
    assert sum(drawn) > 0 and service.is_ready("mesh") and not service.is_ready("liveportrait")


def test_presets_differ_and_natural_is_the_default():
    assert PRESETS["natural"] == Options() and len(set(PRESETS.values())) == len(PRESETS)
    assert {preset.seed for preset in PRESETS.values()} == {Options.seed}


def test_the_chart_shows_every_frame_of_every_line(inputs):
    result = make(inputs)[-1]
    drawing = ElementTree.fromstring(result.chart)
    lines = [line.get("points").split() for line in drawing.iter("{http://www.w3.org/2000/svg}polyline")]
    assert len(lines) == 1 + 2 + 3 and {len(line) for line in lines} == {25}
    for word in ("Voice", "Mouth open", "Eyes open", "Head", "0.5 s"):
        assert word in "".join(drawing.itertext())


def test_the_chart_is_as_high_as_the_voice_is_loud(inputs):
    pieces = [np.full(640, 0.1), np.full(1000, -0.8), np.full(280, 0.2)]
    heard = loudness(iter(pieces))
    assert np.allclose(heard, [0.1, 0.8, 0.8])
    drawing = ElementTree.fromstring(draw_chart(heard, np.zeros((3, 3)), Openings(None, None)))
    line = next(drawing.iter("{http://www.w3.org/2000/svg}polyline")).get("points")
    low, high, _ = (float(point.split(",")[1]) for point in line.split())
    assert low - high == pytest.approx((0.8 - 0.1) / 0.8 * ROW, abs=0.2)


def test_faces_are_shown_where_they_are(inputs):
    image, squares = FilmService(toy.pipeline).faces(inputs / "face.png")
    assert np.array_equal(image, toy.picture()) and squares == [(28, 20, 40)]
    shown = draw_squares(image, squares)
    changed = np.argwhere((shown != image).any(-1))
    assert changed.min(0).tolist() == [20, 28] and changed.max(0).tolist() == [60, 68]


def test_a_long_head_film_does_not_hold_up_other_visitors(inputs):
    begun, may_go_on = Event(), Event()

    class LooksThroughItFirst(toy.ToyEngine):
        def track(self, frames):
            begun.set()
            assert may_go_on.wait(60)
            yield from super().track(frames)

    write_film(inputs / "head.mp4", driving_frames(10))
    service = FilmService(lambda: toy.pipeline(LooksThroughItFirst()))
    (inputs / "other").mkdir()
    with ThreadPoolExecutor() as pool:
        led = request(inputs, pose_from=inputs / "head.mp4")
        slow = pool.submit(lambda: list(service.film(led, inputs / "folder")))
        try:
            assert begun.wait(60)
            other = pool.submit(lambda: list(service.film(request(inputs), inputs / "other")))
            assert isinstance(other.result(60)[-1], Result) and not slow.done()
        finally:
            may_go_on.set()
        assert isinstance(slow.result(60)[-1], Result)


def test_an_engine_that_does_not_tell_openings_still_makes_films(inputs):
    class BlindEngine(toy.ToyEngine):
        measure_openings = Engine.measure_openings

    service = FilmService(lambda: toy.pipeline(BlindEngine()))
    *_, result = service.film(request(inputs), inputs / "folder")
    assert "Mouth" not in result.chart and read_back(result.film)[0] == 25
