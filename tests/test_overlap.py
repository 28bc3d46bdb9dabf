"""Two threads side by side: order, limits, errors from either, and nothing left running."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdlite.overlap import background, prefetch


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


class Source:
    """Counts up for ever, and tells in which thread it was closed and how far it came."""

    def __init__(self) -> None:
        self.made = 0
        self.more = threading.Event()
        self.closed_by: threading.Thread | None = None

    def __iter__(self) -> Iterator[int]:
        try:
            while True:
                yield self.made
                self.made += 1
                self.more.set()
        finally:
            self.closed_by = threading.current_thread()

    def wait_for(self, count: int) -> None:
        while self.made < count:
            assert self.more.wait(5)
            self.more.clear()


@given(st.lists(st.integers()), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_prefetch_keeps_everything_in_order(values: list[int], size: int) -> None:
    with prefetch(values, size) as ahead:
        assert list(ahead) == values


@given(st.lists(st.integers()), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_background_keeps_everything_in_order(values: list[int], size: int) -> None:
    taken: list[int] = []
    with background(taken.extend, size) as put:
        for value in values:
            put(value)
    assert taken == values


def test_prefetch_works_ahead_and_no_further_than_asked() -> None:
    source = Source()
    with prefetch(source, 2) as ahead:
        source.wait_for(2)  # two wait, and a third one waits for room
        assert next(ahead) == 0
        source.wait_for(3)
        assert source.made == 3
    assert source.made == 3


def test_prefetch_closes_an_abandoned_generator_in_its_own_thread() -> None:
    source = Source()
    with prefetch(source, 1) as ahead:
        assert next(ahead) == 0
    assert source.closed_by not in (None, threading.current_thread())


def test_prefetch_raises_where_the_item_would_have_come() -> None:
    def failing() -> Iterator[int]:
        yield from range(3)
        raise KeyError("source")

    seen = []
    with pytest.raises(KeyError, match="source") as caught, prefetch(failing(), 10) as ahead:
        for value in ahead:
            seen.append(value)
    assert seen == [0, 1, 2]
    assert any(entry.name == "failing" for entry in caught.traceback)


def test_prefetch_carries_an_error_of_the_start() -> None:
    class Unready:
        def __iter__(self) -> Iterator[int]:
            raise OSError("no file")

    with pytest.raises(OSError, match="no file"), prefetch(Unready(), 1) as ahead:
        next(ahead)


@pytest.mark.parametrize("error", [ValueError("user"), KeyboardInterrupt()])
def test_prefetch_stops_when_its_user_fails(error: BaseException) -> None:
    source = Source()
    with pytest.raises(type(error)), prefetch(source, 1) as ahead:
        for _ in ahead:
            raise error
    assert source.closed_by is not None


def test_background_raises_what_its_function_raises_at_the_next_put() -> None:
    failed = threading.Event()

    def failing(items: Iterable[int]) -> None:
        try:
            for item in items:
                1 / item
        finally:
            failed.set()

    with pytest.raises(ZeroDivisionError) as caught, background(failing, 1) as put:
        put(0)
        assert failed.wait(5)
        for _ in range(3):
            put(1)
    assert any(entry.name == "failing" for entry in caught.traceback)


def test_background_raises_at_the_end_what_its_function_raises_last() -> None:
    def failing(items: Iterable[int]) -> None:
        assert list(items) == [1]
        raise LookupError("late")

    with pytest.raises(LookupError, match="late"), background(failing, 1) as put:
        put(1)


def test_background_shows_its_function_that_the_user_failed() -> None:
    ended: list[str] = []

    def write(items: Iterable[int]) -> None:
        try:
            for _ in items:
                pass
            ended.append("whole")
        except BaseException:
            ended.append("given up")
            raise

    with pytest.raises(KeyboardInterrupt), background(write, 1) as put:
        put(1)
        raise KeyboardInterrupt
    with background(write, 1) as put:
        put(1)
    assert ended == ["given up", "whole"]


def test_an_interruption_at_the_very_end_waits_for_the_function() -> None:
    ended: list[bool] = []

    def consume(items: Iterator[int]) -> None:
        list(items)
        # Ctrl-C while the user waits for the last items
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.3)
        ended.append(True)

    with pytest.raises(KeyboardInterrupt), background(consume, 2) as put:
        put(1)
    assert ended == [True]


def test_an_interruption_while_a_thread_is_waited_for_comes_after_its_end() -> None:
    """Else it would come back from an image library to a process that is gone."""
    begun = threading.Event()

    def slow() -> Iterator[int]:
        yield 0
        begun.set()
        time.sleep(0.5)
        yield 1

    def leave() -> None:
        with prefetch(slow(), 1) as items:
            next(items)
            begun.wait()
            threading.Timer(0.2, signal.raise_signal, (signal.SIGINT,)).start()

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert not [one for one in threading.enumerate() if one.name.startswith("rdlite")]


def test_a_put_that_waits_for_room_ends_when_the_function_fails() -> None:
    begin = threading.Event()

    def failing(items: Iterable[int]) -> None:
        begin.wait(5)
        raise ValueError("full")

    with pytest.raises(ValueError, match="full"), background(failing, 1) as put:
        put(1)
        threading.Timer(0.05, begin.set).start()
        put(2)


def test_a_function_that_ends_early_takes_nothing_more() -> None:
    with pytest.raises(RuntimeError, match="nothing takes"), background(next, 1) as put:
        for value in range(5):
            put(value)


def test_an_iterator_that_is_never_finished_does_not_keep_the_process() -> None:
    code = (
        "import itertools\nfrom rdlite.overlap import prefetch\n"
        "def user():\n"
        "    with prefetch(itertools.count(), 1) as ahead:\n"
        "        yield from ahead\n"
        "abandoned = user()\nprint(next(abandoned))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
