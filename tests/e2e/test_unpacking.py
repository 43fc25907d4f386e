"""`unpack_mnist` in several processes at once, in one that is killed, and in the launcher, which
does not wait for torch."""

import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_mnist_data import DEADLINE_S, FILES, assert_unpacked, write_archives
from tutorial.mnist import unpack_mnist

REPOSITORY = Path(__file__).parents[2]


def unpack_after(barrier, root: Path) -> None:
    """Unpack when all processes have come to `barrier`."""
    barrier.wait(DEADLINE_S)
    unpack_mnist(root, FILES)


def test_several_processes_that_unpack_at_once_leave_whole_files(tmp_path):
    raw = write_archives(tmp_path)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    processes = [context.Process(target=unpack_after, args=(barrier, tmp_path)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE_S)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert_unpacked(raw)


KILLED_AFTER_ONE_CHUNK = """
import gzip, os, signal, sys
from pathlib import Path
from tutorial.mnist import RawFile, unpack_mnist

read = gzip.GzipFile.read

def read_once(self, size=-1):
    if self.tell() > 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, size)

gzip.GzipFile.read = read_once
unpack_mnist(Path(sys.argv[1]), [RawFile("images", sys.argv[2], int(sys.argv[3]))])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_process_that_is_killed_leaves_no_broken_file(tmp_path):
    raw = write_archives(tmp_path)
    arguments = [str(tmp_path), FILES[0].md5, str(FILES[0].size)]
    command = [sys.executable, "-c", KILLED_AFTER_ONE_CHUNK, *arguments]
    killed = subprocess.run(command, cwd=REPOSITORY, timeout=DEADLINE_S, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (raw / "images").exists()
    (leftover,) = raw.glob("images.*.tmp")
    assert leftover.stat().st_size < FILES[0].size

    unpack_mnist(tmp_path, FILES)
    assert_unpacked(raw, leftover.name)


def test_what_the_launcher_imports_needs_no_torch():
    code = (
        "import sys, tutorial.mnist, tutorial.light, start_websocket_servers; "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=REPOSITORY, timeout=DEADLINE_S).returncode == 0
