"""Work ahead in threads: the same items in the same order, errors in their turn, and no thread is left behind."""

import threading
import time

import pytest

from kdtalker.core.threads import Ahead, RunAhead, get_threads, set_threads


@pytest.fixture(params=[1, 2, 4])
def threads(request):
    before = get_threads()
    set_threads(request.param)
    yield request.param
    set_threads(before)


def wait_for_no_other_threads(before):
    for _ in range(200):
        if set(threading.enumerate()) <= before:
            return
        time.sleep(0.01)
    raise AssertionError(threading.enumerate())


def test_items_come_in_order_however_many_threads_there_are(threads):
    before = set(threading.enumerate())
    twice = RunAhead((2 * item for item in RunAhead(iter(range(300)), 2)), 1)
    assert list(twice) == list(range(0, 600, 2))
    wait_for_no_other_threads(before)


def test_an_error_is_raised_in_its_turn(threads):
    def breaking():
        yield from (1, 2)
        raise ValueError("at the third")

    taken, items = [], RunAhead(breaking(), 5)
    with pytest.raises(ValueError, match="third"):
        for item in items:
            taken.append(item)
    assert taken == [1, 2] and not list(items)


def test_no_more_is_made_than_asked_for(threads):
    made = []

    def making():
        for item in range(100):
            made.append(item)
            yield item

    items = RunAhead(making(), 3)
    assert [next(items), next(items)] == [0, 1]
    time.sleep(0.1)
    assert len(made) <= 2 + (4 if threads > 1 else 0)


@pytest.mark.parametrize("way", ["closed", "dropped", "never taken"])
def test_a_line_that_nobody_wants_ends_its_thread_and_its_source(threads, way):
    before, ended = set(threading.enumerate()), threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            ended.set()

    items = RunAhead(endless(), 2)
    if way != "never taken":
        next(items)
    if way == "closed":
        with items:
            pass
        assert ended.is_set() or threads == 1
    del items
    wait_for_no_other_threads(before)
    assert ended.wait(2) or way == "never taken"


def test_a_call_ahead_gives_its_result_or_its_error(threads):
    assert Ahead(lambda: 7).result() == 7
    broken = Ahead(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        broken.result()
