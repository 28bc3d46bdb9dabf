"""Let one thread work ahead of another: bounded, in order, and stopped as soon as either fails."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_MOMENT: Final = 2.0  # seconds


class _Channel(Generic[T]):
    """A bounded queue between two threads, which either of them can close."""

    def __init__(self, size: int) -> None:
        self._items: deque[T] = deque()
        self._size = size
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: T) -> bool:
        """Wait for room and add an item; False if the channel is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._size)
            if not self._closed:
                self._items.append(item)
                self._changed.notify()
            return not self._closed

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._items))
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify()
            yield item
            del item  # not held while waiting for the next one

    def close(self, *, discard: bool) -> None:
        """Let nothing more in, and what is in it out unless it is discarded."""
        with self._changed:
            self._closed = True
            if discard:
                self._items.clear()
            self._changed.notify_all()


@contextlib.contextmanager
def prefetch(items: Iterable[T], size: int) -> Iterator[Iterator[T]]:
    """Iterate in a thread of its own, ahead of the user by up to `size` items.

    Order is kept. What the iteration raises is raised again where its item would have come. At
    the end of the `with` block the thread has ended, early if need be; a generator is closed
    in it.

    Args:
        items: What to iterate over, the whole of it in the other thread.
        size: Most items that wait for the user.

    Example:
        >>> with prefetch(reader, 2) as frames:
        ...     for frame in frames:
        ...         detector(frame.image)
    """
    channel: _Channel[T] = _Channel(size)
    failures: list[BaseException] = []

    def produce() -> None:
        try:
            iterator = iter(items)
            try:
                for item in iterator:
                    if not channel.put(item):
                        break
            finally:
                if isinstance(iterator, Generator):
                    iterator.close()
        except BaseException as error:
            failures.append(error)
        channel.close(discard=False)

    def consume() -> Iterator[T]:
        yield from channel
        for error in failures:
            raise error

    def abandon() -> None:
        channel.close(discard=True)

    wait = _started(produce, abandon)
    try:
        yield consume()
    finally:
        wait(abandon)


@contextlib.contextmanager
def background(
    consume: Callable[[Iterator[T]], object], size: int
) -> Iterator[Callable[[T], None]]:
    """Hand items to a function that works on them in a thread of its own.

    What the function raises is raised again by the next `put`, or at the end of the `with`
    block, which waits for the function. When the block fails, items that wait are dropped and the
    function sees an exception in place of the next one.

    Args:
        consume: Is called once, with an iterator over all items.
        size: Most items that wait for it.

    Yields:
        `put`, which hands over an item, and waits while there is no room.

    Example:
        >>> with background(write_all, 2) as put:
        ...     for picture in pictures:
        ...         put(picture)
    """
    channel: _Channel[T] = _Channel(size)
    failures: list[BaseException] = []
    abandoned = False

    def items() -> Iterator[T]:
        yield from channel
        if abandoned:
            raise _Abandoned

    def work() -> None:
        try:
            consume(items())
        except _Abandoned:
            pass
        except BaseException as error:
            failures.append(error)
        channel.close(discard=True)

    def put(item: T) -> None:
        if not channel.put(item):
            raise failures[0] if failures else RuntimeError("nothing takes this any more")

    def abandon() -> None:
        nonlocal abandoned
        abandoned = True
        channel.close(discard=True)

    wait = _started(work, abandon)
    try:
        yield put
        wait(lambda: channel.close(discard=False))
    except BaseException:  # also Ctrl-C while the last items are worked on
        wait(abandon)
        raise
    for error in failures:
        raise error


def _started(
    work: Callable[[], None], abandon: Callable[[], None]
) -> Callable[[Callable[[], None]], None]:
    """Do the work in a thread of its own.

    Args:
        work: Is called once.
        abandon: Tells it to end soon, if the user interrupts its start.

    Returns:
        What waits for the end of the work, after it has called the function that it is given.
    """
    ended = threading.Event()
    done = False

    def run() -> None:
        nonlocal done
        try:
            work()
        finally:
            done = True
            ended.set()

    # A daemon, because a generator that is never finished must not keep the process from ending.
    thread = threading.Thread(target=run, name=f"rdlite {work.__name__}", daemon=True)

    def wait(close: Callable[[], None]) -> None:
        try:
            close()
            # Not `join` alone: interrupted, it takes the thread for ended (Python 3.11). Nor the
            # event alone: at the exit of the process a daemon ends without a word.
            while not ended.wait(0.1) and thread.is_alive():
                pass
            thread.join()
        except KeyboardInterrupt:
            give_up(close)
            raise

    def give_up(close: Callable[[], None]) -> None:
        # A thread that comes back from OpenCV to a process that exits aborts it, so it gets a
        # moment to end. Looked at without a lock: Ctrl-C may have left any of them locked.
        close()
        deadline = time.monotonic() + _MOMENT
        while not done and time.monotonic() < deadline:
            time.sleep(0.01)

    try:
        thread.start()
    except KeyboardInterrupt:
        give_up(abandon)
        raise
    return wait


class _Abandoned(BaseException):
    """Ends the work on items of which no more will come."""
