"""`python -m syft.worker` as a process of its own, started where nothing of the project is."""

import signal

import torch

import syft as sy
from tests.e2e.programs import free_ports, is_free, run, running
from tests.models import classifier, make_config

WORKER = "-m syft.worker"
BLOBS = """
import torch, syft as sy

def load(rows):
    inputs = torch.arange(float(rows)).repeat(4, 1).T / float(rows)
    return sy.BaseDataset(inputs, torch.arange(int(rows)) % 3)
"""


def test_a_worker_with_the_users_own_dataset_trains_and_ends_on_sigterm(tmp_path):
    (tmp_path / "blobs.py").write_text(BLOBS)
    (port,) = free_ports(1)
    words = ["--id", "paris", "--port", str(port), "--key", "numbers"]
    words += ["--dataset", "blobs:load", "30", "--max_fits", "1"]
    with running(WORKER, *words, folder=tmp_path, cwd=tmp_path, merge=True) as program:
        program.read_until(f"serves at ws://localhost:{port}")
        proxy = sy.WebsocketClientWorker(None, "localhost", port, id="paris", timeout=60)
        make_config(classifier()).send(proxy)
        assert torch.isfinite(proxy.fit("numbers"))
        assert proxy.evaluate("numbers")["nr_predictions"] == 30
        proxy.close()
        program.signal(signal.SIGTERM)
        status, out, _ = program.finish()
    assert (status, "Traceback" in out) == (0, False)
    assert is_free(port)


def test_a_dataset_that_is_not_there_is_one_line_and_exit_status_2(tmp_path):
    words = ["--id", "paris", "--port", "0", "--key", "numbers", "--dataset", "blobs:load"]
    status, out, err = run(WORKER, *words, folder=tmp_path, cwd=tmp_path)
    assert (status, out) == (2, "")
    assert err == (
        "error: cannot find 'blobs:load': No module named 'blobs'; looked in "
        f"{tmp_path} and what is installed\n"
    )
