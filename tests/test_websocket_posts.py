"""Posted requests: nobody waits for them, and their errors are not lost."""

from concurrent.futures import Future

from syft.exceptions import ConnectionLost
from syft.workers.websocket_posts import Posts


def test_requests_that_are_given_up_are_cancelled_and_no_later_call_fails_for_them():
    posts, futures = Posts("alice"), [Future(), Future(), Future()]
    for future in futures:
        posts.add(future)
    futures[0].set_exception(ConnectionLost("alice", "ws://alice:8777", "set", "reset"))
    assert len(posts) == 2
    posts.give_up()
    assert len(posts) == 0 and all(future.cancelled() for future in futures[1:])
    assert posts.take_error() is None


def test_the_first_error_is_told_once():
    posts, futures = Posts("alice"), [Future(), Future()]
    errors = [ConnectionLost("alice", "ws://alice:8777", call, "reset") for call in ("set", "fit")]
    for future, error in zip(futures, errors, strict=True):
        posts.add(future)
        future.set_exception(error)
    assert posts.take_error() is errors[0]
    assert posts.take_error() is None
