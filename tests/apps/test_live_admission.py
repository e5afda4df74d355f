"""Sessions are let in by what they cost; faces are loaded before they are wanted, and kept while they are used."""

import asyncio
import os
from contextlib import ExitStack
from dataclasses import replace

import pytest
from live_client import PORTRAIT, client, live_pipeline, post, served, voice

from kdtalker.apps.live import admission as live_admission
from kdtalker.apps.live import portraits as live_portraits
from kdtalker.apps.live import service as live_service
from kdtalker.apps.live.admission import CORE_BUDGET_MS, Admission, rehearse
from kdtalker.apps.live.portraits import UPLOADS_WAITING, UploadQueue
from kdtalker.apps.live.service import FaceCache, LiveService
from kdtalker.apps.live.wire import Hello, ProtocolError
from kdtalker.core.errors import InputError
from kdtalker.core.options import Options
from kdtalker.live.face import LiveFace
from kdtalker.live.frames import LiveStats
from kdtalker.live.options import LiveOptions

CORE = CORE_BUDGET_MS
SPEAKS = LiveStats(hear_ms=0.3 * CORE, draw_ms=0.5 * CORE)


def is_admitted(admission, running, opening=0):
    try:
        admission.check(running, opening)
    except ProtocolError as refused:
        assert (refused.code, refused.close) == ("busy", 1013) and "try again in 30 s" in str(refused)
        return False
    return True


def test_sessions_are_let_in_while_the_cores_have_time_for_all():
    two = Admission(most=9, cores=2)
    assert is_admitted(two, [SPEAKS]) and not is_admitted(two, [SPEAKS] * 2)
    assert not is_admitted(two, [SPEAKS], opening=1)
    four = Admission(most=9, cores=4)
    assert is_admitted(four, [SPEAKS] * 4) and not is_admitted(four, [SPEAKS] * 5)
    two.learn_encoding(0.3 * CORE)
    assert not is_admitted(two, [SPEAKS])


def test_the_first_session_is_let_in_on_any_machine():
    slow = Admission(most=9, cores=1)
    slow.learn(4 * CORE)
    assert is_admitted(slow, [])


def test_a_session_that_is_idle_or_draws_less_counts_as_one_that_speaks():
    admission = Admission(most=9, cores=2)
    assert is_admitted(admission, [LiveStats()]) and not is_admitted(admission, [LiveStats()] * 2)  # a core each
    admission.learn(0.8 * CORE)
    assert not is_admitted(admission, [LiveStats()] * 2)
    assert not is_admitted(admission, [LiveStats(hear_ms=0.01 * CORE, draw_ms=0.01 * CORE)] * 2)
    busy = LiveStats(hear_ms=CORE, draw_ms=CORE, waiting_s=0.2)
    assert not is_admitted(admission, [busy])  # what it needs now
    assert is_admitted(admission, [replace(busy, waiting_s=0)])  # what it once needed counts no longer


def test_by_default_there_is_a_place_for_each_two_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    assert Admission().most == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5}, raising=False)
    assert Admission().most == 1


def test_who_comes_when_there_is_no_time_is_told_and_who_runs_goes_on(monkeypatch):
    async def run(address):
        async with client(address) as first:
            await first.event("ready")
            async with client(address) as second:
                refused = await second.closed(), second.errors(), second.events[-1]["message"]
            await first.send(voice(0.5))
            await first.send({"type": "flush"})
            return refused, await first.event("ended")

    monkeypatch.setattr(live_admission, "CORE_BUDGET_MS", 0.0)
    with served(most=4) as address:
        (close, codes, message), ended = asyncio.run(run(address))
    assert (close, codes) == (1013, ["busy"]) and "With another live session all 2 would need" in message
    assert (ended["samples"], ended["interrupted"]) == (8000, False)


def test_who_comes_when_a_session_has_just_ended_waits_for_its_place(monkeypatch):
    """Whether the server knows already that it ends, or not yet."""
    monkeypatch.setattr(live_service, "FREE_WITHIN_S", 0.1)

    async def run(is_known, ends_within_s):
        service = LiveService(live_pipeline, PORTRAIT, most=1)

        async def first():
            async with service.admit() as place:
                place.is_ending = is_known
                await asyncio.sleep(ends_within_s)

        ending = asyncio.ensure_future(first())
        await asyncio.sleep(0)
        async with service.admit():
            assert ending.done()

    asyncio.run(run(False, 0.05))
    asyncio.run(run(True, 0.3))
    with pytest.raises(ProtocolError, match="All 1 live sessions are taken"):
        asyncio.run(run(False, 0.3))


def test_the_face_used_least_recently_goes_but_none_that_is_held():
    made = []

    async def run():
        cache = FaceCache(most=2)

        async def get(key):
            async def make():
                made.append(key)
                return key

            return await cache.get(key, make)

        with cache.hold("a"):
            for key in "abcbd":
                assert await get(key) == key
        assert [key in cache for key in "abcd"] == [True, False, False, True]
        await get("a")
        await get("e")
        return [key in cache for key in "ade"]

    assert asyncio.run(run()) == [True, False, True] and made == ["a", "b", "c", "d", "e"]


def test_all_who_want_a_face_wait_for_one_and_after_an_error_it_is_tried_again():
    async def run():
        cache, tries = FaceCache(), []

        async def make():
            tries.append(1)
            await asyncio.sleep(0)
            if len(tries) == 1:
                raise InputError("no face")
            return "face"

        first = await asyncio.gather(cache.get(0, make), cache.get(0, make), return_exceptions=True)
        return [str(error) for error in first], await cache.get(0, make), len(tries)

    assert asyncio.run(run()) == (["no face"] * 2, "face", 2)


def test_the_own_face_is_loaded_before_it_is_wanted(monkeypatch):
    loads, encoded, encode = [], [], LiveFace.encode

    def load():
        loads.append(1)
        return live_pipeline()

    def count(*inputs, **options):
        encoded.append(1)
        return encode(*inputs, **options)

    monkeypatch.setattr(LiveFace, "encode", staticmethod(count))

    async def run():
        service = LiveService(load, PORTRAIT)
        await service.preload()
        assert (len(loads), len(encoded)) == (1, 1)
        await service.close(await service.open(Hello(LiveOptions())))
        return len(loads), len(encoded)

    assert asyncio.run(run()) == (1, 1)


def test_what_fails_before_it_is_wanted_is_told_to_the_one_who_wants_it():
    def load():
        raise InputError("There are no weights.")

    async def run():
        service = LiveService(load, PORTRAIT)
        await service.preload()
        with pytest.raises(InputError, match="no weights"):
            await service.open(Hello(LiveOptions()))

    asyncio.run(run())


def test_a_rehearsal_measures_a_frame_and_ends_where_it_is_not_wanted():
    face = LiveFace.load(PORTRAIT, pipeline=live_pipeline())
    assert rehearse(face, lambda: True) > 0
    assert rehearse(face, lambda: False) == 0


def test_a_portrait_that_a_session_uses_keeps_its_idle_motion_however_many_options_others_have():
    async def run():
        service = LiveService(live_pipeline, PORTRAIT)
        key = await service.add_portrait(PORTRAIT.read_bytes())
        first = await service.open(Hello(LiveOptions(), key))
        for seed in range(12):
            await service.close(await service.open(Hello(LiveOptions(options=Options(seed=seed + 1)), key)))
        again = await service.open(Hello(LiveOptions(), key))
        is_shared = again.idle is first.idle
        await service.close(first)
        await service.close(again)
        return is_shared

    assert asyncio.run(run())


def test_uploads_that_wait_are_bounded_by_number_and_bytes():
    queue = UploadQueue(100)
    with ExitStack() as waiting:
        for _ in range(UPLOADS_WAITING):
            waiting.enter_context(queue.admit(1))
        with pytest.raises(ProtocolError, match="send this one again in 30 s"), queue.admit(1):
            pass
    with queue.admit(60):
        with pytest.raises(ProtocolError, match="again") as refused, queue.admit(41):
            pass
        with queue.admit(40):
            pass
    assert refused.value.code == "busy"


def test_a_picture_for_which_there_is_no_place_is_refused_by_503(monkeypatch):
    monkeypatch.setattr(live_portraits, "BODIES_WAITING", 0)
    with served() as address:
        status, told = post(address, PORTRAIT.read_bytes())
    assert (status, told["code"]) == (503, "busy") and "again" in told["message"]
