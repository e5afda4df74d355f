"""The Live tab in a real browser, over the toy engine: a voice from a fake microphone, a text, and what is told when
there is no connection."""

import shutil

import cv2
import page
import pytest
import toy
from axe_playwright_python.sync_playwright import Axe
from live_client import live_pipeline
from playwright.sync_api import expect, sync_playwright
from test_browser import QUIET
from test_cli import write_wav

PHONE = {"viewport": {"width": 390, "height": 844}}
PICTURE = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(value => value)"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with page.opened(tmp_path_factory.mktemp("visitors"), live_pipeline, most=1) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    voice = tmp_path_factory.mktemp("microphone") / "voice.wav"
    write_wav(voice, toy.sound(20.0))
    with sync_playwright() as playwright:
        arguments = [*QUIET, f"--use-file-for-fake-audio-capture={voice}"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def tab(browser, address):
    """The page of the tab alone, as on a phone."""
    with browser.new_context(**PHONE) as context:
        context.set_default_timeout(60_000)
        visitor = context.new_page()
        visitor.goto(f"{address}live")
        yield visitor


def test_the_tab_of_the_page_answers_in_ones_own_voice(browser, address):
    with browser.new_context(**PHONE) as context:
        visitor = context.new_page()
        visitor.goto(address)
        visitor.get_by_role("tab", name="Live").click()
        live = visitor.frame_locator("#live")
        live.get_by_role("button", name="Talk").click()
        expect(live.locator("#status")).to_contain_text("answers in your voice")
        expect(live.locator("#latency")).to_contain_text("ms from your mouth")
        assert live.locator("#face").evaluate(PICTURE)
        assert 100 < int(live.locator("#latency").get_attribute("data-ms")) < 60_000
        live.get_by_role("button", name="Stop").click()
        expect(live.locator("#status")).to_have_text("Stopped.")


def test_a_text_is_said_and_can_be_interrupted(tab):
    tab.get_by_label("What the face says").fill("One two three four five six seven eight nine ten eleven twelve.")
    tab.get_by_role("button", name="Say").click()
    expect(tab.locator("#latency")).to_contain_text("first frame")
    tab.get_by_role("button", name="Interrupt").click()
    expect(tab.locator("#status")).to_contain_text("Interrupted after")
    tab.get_by_label("What the face says").fill("One.")
    tab.get_by_role("button", name="Say").click()  # in the same session
    expect(tab.locator("#status")).to_contain_text("Type another")
    tab.get_by_role("button", name="Stop").click()


COUNT_SOUNDS = """() => {
  const start = AudioBufferSourceNode.prototype.start;
  window.sounds = 0;
  AudioBufferSourceNode.prototype.start = function (...when) {
    window.sounds++;
    return start.apply(this, when);
  };
}"""


def test_an_interruption_is_heard_before_the_server_knows(tab):
    tab.evaluate(COUNT_SOUNDS)
    tab.get_by_label("What the face says").fill(", ".join(["one two three four five six seven eight nine ten"] * 4))
    tab.get_by_role("button", name="Say").click()
    for _ in range(3000):  # wait_for_function breaks the page's content security policy
        if tab.evaluate("window.sounds > 5"):
            break
        tab.wait_for_timeout(20)
    tab.evaluate("() => { WebSocket.prototype.send = () => {}; }")
    tab.get_by_role("button", name="Interrupt").click()
    heard = tab.evaluate("window.sounds")
    for _ in range(2):  # a second of frames in between
        expect(tab.locator("#counts")).not_to_have_text(tab.locator("#counts").text_content(), timeout=60_000)
    assert tab.evaluate("window.sounds") == heard
    tab.get_by_role("button", name="Stop").click()


def test_another_face_is_shown_or_refused(tab, tmp_path):
    cv2.imwrite(str(tmp_path / "face.png"), toy.picture(96, 80)[..., ::-1])
    (tmp_path / "words.png").write_text("only words")
    tab.get_by_label("Another face").set_input_files(tmp_path / "words.png")
    expect(tab.get_by_role("alert")).to_contain_text("not a picture")
    tab.get_by_label("Another face").set_input_files(tmp_path / "face.png")
    expect(tab.locator("#status")).to_contain_text("This face is next")
    tab.get_by_role("button", name="Talk").click()
    expect(tab.locator("#status")).to_contain_text("answers in your voice")
    expect(tab.locator("#face")).to_have_js_property("width", 96)
    tab.get_by_role("button", name="Stop").click()


def test_who_comes_second_is_told_that_it_is_busy(tab, browser, address):
    tab.get_by_role("button", name="Talk").click()
    expect(tab.locator("#status")).to_contain_text("answers in your voice")
    with browser.new_context() as context:
        second = context.new_page()
        second.goto(f"{address}live")
        second.get_by_role("button", name="Talk").click()
        expect(second.get_by_role("alert")).to_contain_text("All 1 live sessions are taken")
    tab.get_by_role("button", name="Stop").click()


NO_MICROPHONE = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', '%s'); }"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (NO_MICROPHONE % "NotAllowedError", "may not use the microphone"),
        (NO_MICROPHONE % "NotFoundError", "No microphone was found"),
        ("Object.defineProperty(window, 'isSecureContext', { value: false })", "not opened safely"),
        (
            "window.WebSocket = class extends WebSocket { constructor() { super('ws://127.0.0.1:1/'); } }",
            "could be made",
        ),
    ],
)
def test_what_is_wrong_is_told(tab, script, told):
    tab.evaluate(f"() => {{ {script}; }}")
    tab.get_by_role("button", name="Talk").click()
    expect(tab.get_by_role("alert")).to_contain_text(told)
    assert tab.get_by_role("button", name="Talk").is_enabled()


def test_the_tab_fits_a_phone_and_can_be_used_by_all(tab):
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert Axe().run(tab).response["violations"] == []
