"""The compute thread: the race between a job's end and the clock."""

from concurrent.futures import Future

from syft.workers.compute import ComputeThread

DEADLINE = 20


def test_a_clock_that_fires_as_the_job_ends_abandons_nothing():
    compute, done = ComputeThread("alice", 60, 1), Future()
    done.set_result(3)
    compute._give_up(done)
    assert compute.stuck == 0 and done.result() == 3
    assert compute.submit(int, "4").result(DEADLINE) == 4
    compute.shutdown()
