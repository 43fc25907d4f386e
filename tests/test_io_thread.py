"""The I/O thread: how it ends with the process, and what a forked child does without it."""

import threading

import pytest

from syft.workers.io_thread import IOThread, _stop
from tests.network import DEADLINE, assert_usable


@pytest.fixture
def io(monkeypatch):
    """An I/O thread that is this process's own while the test runs."""
    monkeypatch.setattr(IOThread, "_current", None)
    io = IOThread.current()
    yield io
    io.stop()
    io._thread.join(DEADLINE)
    io.loop.close()


class Link:
    def __init__(self, error=None):
        self.closed, self._error = threading.Event(), error

    async def close(self):
        self.closed.set()
        if self._error is not None:
            raise self._error


def test_all_connections_are_closed_when_the_process_ends_also_after_one_that_fails(io):
    links = [Link(OSError("reset")), Link(), Link()]
    io.links.update(links)
    _stop()
    assert all(link.closed.is_set() for link in links)
    io._thread.join(DEADLINE)
    assert not io._thread.is_alive()


def test_a_process_that_never_connected_ends_without_an_io_thread(monkeypatch):
    monkeypatch.setattr(IOThread, "_current", None)
    _stop()
    assert IOThread._current is None


def test_what_the_end_of_the_process_calls_later_closes_proxies_and_waits_for_no_reply(proxy, io):
    """An exit handler that was registered before syft was imported runs after syft's own."""
    assert_usable(proxy)  # over the new thread
    _stop()
    assert not io.alive
    _stop()
    proxy.close()
    with pytest.raises(RuntimeError, match="a worker was called when this process had closed"):
        proxy.objects_count_remote()


def test_a_forked_child_leaves_its_parents_thread_alone(monkeypatch, io):
    monkeypatch.setattr(IOThread, "_abandoned", [])
    monkeypatch.setattr(IOThread, "_starting", threading.Lock())
    IOThread.after_fork()  # as in the child
    assert IOThread._abandoned == [io] and IOThread._current is None
    IOThread.after_fork()  # as in a child of the child, which has not connected
    assert IOThread._abandoned == [io]


def test_a_proxy_connects_anew_over_another_io_thread(proxy, io):
    former = proxy._link
    assert former is not None and former.io is not io
    assert_usable(proxy)
    assert proxy._link is not former and proxy._link.io is io
    proxy.close()
