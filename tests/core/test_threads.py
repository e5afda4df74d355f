"""Prefetch in threads: the same items in the same order, errors in their turn, and no thread is left behind."""

import gc
import subprocess
import sys
import threading
import time

import pytest

from kdtalker.core.threads import Future, Prefetch, get_threads, set_threads


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
    twice = Prefetch((2 * item for item in Prefetch(iter(range(300)), 2)), 1)
    assert list(twice) == list(range(0, 600, 2))
    wait_for_no_other_threads(before)


def test_an_error_is_raised_in_its_turn(threads):
    def breaking():
        yield from (1, 2)
        raise ValueError("at the third")

    taken, items = [], Prefetch(breaking(), 5)
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

    items = Prefetch(making(), 3)
    assert [next(items), next(items)] == [0, 1]
    time.sleep(0.1)
    assert len(made) <= 2 + (4 if threads > 1 else 0)


@pytest.mark.parametrize("way", ["closed", "dropped", "never taken"])
def test_a_prefetch_that_is_abandoned_ends_its_thread_and_its_source(threads, way):
    before, ended = set(threading.enumerate()), threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            ended.set()

    items = Prefetch(endless(), 2)
    if way != "never taken":
        next(items)
    if way == "closed":
        with items:
            pass
        assert ended.is_set()
    del items
    wait_for_no_other_threads(before)
    assert ended.wait(2) or way == "never taken"


def test_a_future_gives_its_result_or_its_error(threads):
    assert Future(lambda: 7).result() == 7
    broken = Future(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        broken.result()


def test_there_are_no_more_threads_than_are_allowed(threads):
    before, nested = set(threading.enumerate()), iter(range(1000))
    for _ in range(5):
        nested = Prefetch(nested, 1)
    assert next(nested) == 0
    assert len(set(threading.enumerate()) - before) == min(threads - 1, 5)
    with nested:
        pass


ABANDONED = """
import itertools, sys
from kdtalker.core.threads import Prefetch, set_threads
set_threads(2)

def reader():
    with Prefetch(itertools.count(), 1) as items:
        yield from items

frames = reader()
next(frames)
"""


def test_the_interpreter_exits_while_a_prefetch_is_in_use():
    ran = subprocess.run([sys.executable, "-c", ABANDONED], timeout=60, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_thread_does_not_wait_for_itself(threads):
    def reader(items):
        with Prefetch(items, 1) as taken:
            yield from taken

    def source():
        yield 1
        del held["reader"]  # the last reference: the reader is closed in this thread
        gc.collect()
        ended.set()
        yield 2

    held, ended = {}, threading.Event()
    held["reader"] = reader(source())
    assert next(held["reader"]) == 1
    assert threads == 1 or ended.wait(10)
