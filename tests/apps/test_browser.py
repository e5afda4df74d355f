"""The page in a real browser, over the toy engine. `tests/browser.sh` installs the browser where there is none."""

import base64
import re
import shutil
import tempfile
import time

import cv2
import page
import pytest
import toy
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright
from test_cli import write_wav

expect.set_options(timeout=60_000)  # for machines that are busy
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run", "--autoplay-policy=no-user-gesture-required",
         "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # fmt: skip
CORNER = """video => {  // the middle colour of the upper left corner
    const drawing = new OffscreenCanvas(1, 1).getContext("2d");
    drawing.drawImage(video, 0, 0, 40, 40, 0, 0, 1, 1);
    return Array.from(drawing.getImageData(0, 0, 1, 1).data.slice(0, 3));
}"""
HELD = ("#picture .image-frame img", "#sound [data-testid=download-link]")  # seen once the page holds picture and sound


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with page.opened(tmp_path_factory.mktemp("visitors"), page.unhurried) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def inputs(tmp_path):
    cv2.imwrite(str(tmp_path / "face.png"), toy.picture(384, 320)[..., ::-1])
    write_wav(tmp_path / "voice.wav", toy.sound(2.0))
    write_wav(tmp_path / "long.wav", toy.sound(29.0))
    (tmp_path / "words.png").write_text("only words")
    return tmp_path


@pytest.fixture
def visit(browser, address):
    """Opens the page as another visitor, each time it is called."""
    contexts = []

    def visit(**how):
        context = browser.new_context(**how)
        context.set_default_timeout(60_000)
        contexts.append(context)
        visitor = context.new_page()
        visitor.goto(address)
        expect(visitor.locator("#make")).to_be_visible()
        return visitor

    yield visit
    for context in contexts:
        context.close()


def choose(visitor, picture, voice):
    visitor.locator("#picture input[type=file]").set_input_files(picture)
    visitor.locator("#sound input[type=file]").set_input_files(voice)
    for held in HELD:
        expect(visitor.locator(held)).to_be_visible()


def make(visitor, inputs, voice="voice.wav"):
    choose(visitor, inputs / "face.png", inputs / voice)
    visitor.click("#make")


def test_a_film_is_made_before_ones_eyes_and_plays_with_sound(visit, inputs):
    visitor = visit()
    make(visitor, inputs)
    expect(visitor.locator("#stage img")).to_be_visible()
    expect(visitor.locator("#stage")).to_contain_text("of 50")
    video = visitor.locator("#film video")
    expect(video).to_be_visible()
    visitor.wait_for_function("document.querySelector('#film video').currentTime > 0.5")
    assert video.evaluate("video => video.duration") == pytest.approx(2, abs=0.1)
    assert video.evaluate("video => video.webkitAudioDecodedByteCount") > 0
    assert not video.evaluate("video => video.muted")
    for what, ending in (("film", ".mp4"), ("motion", ".npz")):
        with visitor.expect_download() as download:
            visitor.get_by_role("button", name=f"Download the {what}").or_(
                visitor.get_by_role("link", name=f"Download the {what}")
            ).first.click()
        assert download.value.suggested_filename.endswith(ending)


def test_a_text_is_spoken(visit, inputs):
    visitor = visit()
    choose(visitor, inputs / "face.png", inputs / "voice.wav")
    visitor.get_by_label("Text", exact=True).check()
    visitor.get_by_label("What the portrait says").fill("She had no wish to be told.")
    visitor.click("#make")
    expect(visitor.locator("#stage")).to_contain_text("of film, made in")
    length_s = float(visitor.locator("#stage").inner_text().split()[0])
    assert 1 < length_s < 3 and length_s != 2  # the sound that was chosen before lasts 2 s


def test_the_published_engine_tells_which_files_it_lacks(visit):
    visitor = visit()
    visitor.locator("#controls button").first.click()
    expect(visitor.locator("#lacking")).to_be_hidden()
    visitor.get_by_label("LivePortrait, published").check()
    expect(visitor.locator("#lacking")).to_contain_text("kdtalker weights get KDTalker.pth")
    visitor.get_by_label("Mesh, in real time").check()
    expect(visitor.locator("#lacking")).to_be_hidden()


def test_presets_and_the_seed_move_the_controls(visit):
    visitor = visit()
    visitor.locator("#controls button").first.click()
    still, seed = visitor.get_by_label("Still head"), visitor.locator("#controls input[type=number]").first
    expect(still).not_to_be_checked()
    visitor.get_by_label("still", exact=True).check()
    expect(still).to_be_checked()
    assert seed.input_value() == "0"
    visitor.click("#reroll")
    expect(seed).not_to_have_value("0")


def test_a_control_changes_the_film(visit, inputs):
    visitor = visit()
    choose(visitor, inputs / "face.png", inputs / "voice.wav")
    visitor.locator("#controls button").first.click()
    background = visitor.get_by_label("Background", exact=True)
    background.fill("lime")
    background.press("Enter")
    visitor.click("#make")
    visitor.wait_for_function("document.querySelector('#film video')?.currentTime > 0.5")
    corner = visitor.locator("#film video").evaluate(CORNER)
    assert corner == pytest.approx([0, 255, 0], abs=30)  # the picture is grey noise


def test_wrong_and_missing_files_are_told_on_the_page(visit, inputs):
    visitor = visit()
    visitor.click("#make")
    expect(visitor.get_by_role("alert")).to_contain_text("There is no portrait yet")
    choose(visitor, inputs / "words.png", inputs / "voice.wav")
    visitor.click("#make")
    expect(visitor.get_by_role("alert")).to_contain_text("not a picture")


def test_who_presses_the_button_before_the_files_are_there_gets_the_film(visit, inputs):
    visitor, uploads = visit(), []

    def hold(upload):
        uploads.append(upload)

    visitor.route("**/upload?*", hold)
    for widget, name in (("picture", "face.png"), ("sound", "voice.wav")):
        visitor.locator(f"#{widget} input[type=file]").set_input_files(inputs / name)
    expect(visitor.locator(".uploading")).to_have_count(2)
    visitor.click("#make")
    expect(visitor.locator("#make")).to_have_class(re.compile("waiting"))
    for upload in uploads:
        upload.continue_()
    expect(visitor.locator("#film video")).to_be_visible()
    expect(visitor.locator("#make")).not_to_have_class(re.compile("waiting"))


def test_stop_stops_and_the_page_can_be_used_again(visit, inputs):
    visitor = visit()
    make(visitor, inputs, "long.wav")
    expect(visitor.locator("#stage img")).to_be_visible()
    visitor.click("#stop")
    expect(visitor.locator("#stage")).to_contain_text("Stopped")
    expect(visitor.locator("#stop")).to_be_disabled()
    visitor.wait_for_timeout(1000)
    expect(visitor.locator("#stage")).to_contain_text("Stopped")
    visitor.click("#make")
    expect(visitor.locator("#stage img")).to_be_visible()
    visitor.click("#stop")


def test_two_visitors_at_once_see_their_own_alone(visit, inputs):
    first, second = visit(), visit()
    choose(first, inputs / "face.png", inputs / "long.wav")
    expect(second.locator(HELD[0])).to_have_count(0)
    choose(second, inputs / "face.png", inputs / "voice.wav")
    first.click("#make")
    expect(first.locator("#stage")).to_contain_text("of 725")
    expect(second.locator("#stage")).to_contain_text("appears here")
    second.click("#make")
    expect(second.locator("#film video")).to_be_visible()
    expect(first.locator("#stage")).to_contain_text("of 725")
    expect(first.locator("#film video")).to_have_count(0)
    first.click("#stop")


def test_a_face_is_chosen_by_number_or_by_click(visit, inputs):
    visitor = visit()
    choose(visitor, inputs / "face.png", inputs / "voice.wav")
    first, second = (visitor.locator("#face").get_by_label(number, exact=True) for number in ("1", "2"))
    expect(first).to_be_checked()
    found = visitor.locator("#found img")
    visitor.wait_for_function("document.querySelector('#found img')?.naturalWidth > 0")
    box = found.bounding_box()
    found.click(position={"x": box["width"] * 0.75, "y": box["height"] / 2})
    expect(second).to_be_checked()
    visitor.click("#make")
    expect(visitor.get_by_role("alert")).to_contain_text("Face 1 was asked for")  # the toy knows one, numbered 0
    first.check()
    visitor.click("#make")
    expect(visitor.locator("#film video")).to_be_visible()


def test_what_happened_is_drawn_below_the_film(visit, inputs):
    visitor = visit()
    expect(visitor.locator("#happened")).to_be_hidden()
    make(visitor, inputs)
    expect(visitor.locator("#film video")).to_be_visible()
    visitor.locator("#happened button").first.click()
    expect(visitor.locator("#chart svg")).to_be_visible()


def test_a_picture_is_taken_and_a_voice_recorded(visit):
    """From Chromium's own camera and microphone, which show a test pattern and beep."""
    visitor = visit(permissions=["camera", "microphone"])
    visitor.get_by_label("Capture from camera").click()
    visitor.get_by_text("Click to Access Webcam").click()
    visitor.wait_for_function("document.querySelector('#picture video')?.currentTime > 0")
    visitor.get_by_label("capture photo").click()
    expect(visitor.locator(HELD[0])).to_be_visible()
    visitor.get_by_label("Record audio").click()
    visitor.locator("#sound .record-button").click()
    expect(visitor.locator("#sound time.duration")).to_have_text(re.compile("[1-9]"))  # seconds
    visitor.locator("#sound .stop-button").click()
    expect(visitor.locator(HELD[1])).to_be_visible()
    visitor.click("#make")
    expect(visitor.locator("#stage")).to_contain_text("of film, made in")
    assert 0.5 < float(visitor.locator("#stage").inner_text().split()[0]) < 30


def test_a_picture_is_pasted(visit, inputs):
    visitor = visit(permissions=["clipboard-read", "clipboard-write"])
    content = base64.b64encode((inputs / "face.png").read_bytes()).decode()
    visitor.evaluate(
        """async content => navigator.clipboard.write([new ClipboardItem({
            'image/png': await (await fetch('data:image/png;base64,' + content)).blob()})])""",
        content,
    )
    visitor.get_by_label("Paste from clipboard").click()
    expect(visitor.locator(HELD[0])).to_be_visible()


def test_who_closes_the_page_leaves_nothing_running(visit, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    visitor = visit()
    make(visitor, inputs, "long.wav")
    expect(visitor.locator("#stage img")).to_be_visible()
    assert len(list(tmp_path.glob("kdtalker-*"))) == 1
    visitor.context.close()
    waited_until = time.monotonic() + 60
    while list(tmp_path.glob("kdtalker-*")) and time.monotonic() < waited_until:
        time.sleep(0.1)
    assert list(tmp_path.glob("kdtalker-*")) == []


def test_those_who_wait_see_their_place_and_a_full_queue_says_so(browser, tmp_path, inputs, monkeypatch):
    monkeypatch.setattr(page.app, "FILMS_AT_ONCE", 1)
    monkeypatch.setattr(page.app, "WAITING_LIMIT", 1)
    with page.opened(tmp_path / "visitors", page.unhurried) as address:
        visitors = [browser.new_page() for _ in range(3)]
        for visitor in visitors:
            visitor.goto(address)
            choose(visitor, inputs / "face.png", inputs / "long.wav")
        for visitor, told in zip(visitors[:2], ("of 725", "queue: 1/1"), strict=True):
            visitor.click("#make")
            expect(visitor.locator("#stage")).to_contain_text(told)
        visitors[2].click("#make")
        expect(visitors[2].get_by_test_id("toast-body")).to_contain_text("busy")
        visitors[0].click("#stop")
        expect(visitors[1].locator("#stage img")).to_be_visible()
        for visitor in visitors:
            visitor.close()


def test_a_phone_shows_all_of_it(visit):
    visitor = visit(viewport={"width": 375, "height": 720})
    assert visitor.evaluate("document.documentElement.scrollWidth") <= 375
    visitor.click("#make")
    expect(visitor.locator("#stage")).to_be_in_viewport(ratio=0.9)
    visitor.locator("#controls button").first.click()
    expect(visitor.locator("#reroll")).to_be_visible()
    assert visitor.evaluate("document.documentElement.scrollWidth") <= 375


def test_the_page_can_be_used_by_everybody(visit):
    """The keyboard alone presses the button; axe-core finds nothing serious, controls open or not."""
    visitor = visit()
    for _ in range(60):
        visitor.keyboard.press("Tab")
        if visitor.evaluate("document.activeElement.id") == "make":
            break
    visitor.keyboard.press("Enter")
    expect(visitor.get_by_role("alert")).to_contain_text("There is no portrait yet")
    visitor.locator("#controls button").first.click()
    found = Axe().run(visitor).response["violations"]
    serious = {
        row["id"]: [node["html"] for node in row["nodes"]] for row in found if row["impact"] in ("serious", "critical")
    }
    assert serious == {}


def test_nothing_is_asked_of_other_servers(browser, address):
    asked = []
    context = browser.new_context()
    visitor = context.new_page()
    visitor.on("request", lambda request: asked.append(request.url))
    visitor.goto(address)
    expect(visitor.locator("#make")).to_be_visible()
    visitor.wait_for_timeout(500)
    context.close()
    assert asked and [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
