"""Calls that end the process when torch's own operators get them, and are errors behind the
guards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CRASHES = """
import os, sys, warnings, torch
from syft.graph.operators import resolve
from torch import tensor, zeros
A, L = torch.ops.aten, -(2**63)
calls = {
    "aten::lcm": (A.lcm.default, tensor([L]), tensor([5])),
    "aten::div.Tensor_mode": (A.div.Tensor_mode, tensor([L]), tensor([-1])),
    "aten::_native_multi_head_attention": (
        A._native_multi_head_attention.default, *[torch.rand(2, 4, 8)] * 3, 8, 0,
        torch.rand(24, 8), torch.rand(24), torch.rand(8, 8), torch.rand(8),
    ),
    "aten::__interpolate.scale_list": (
        getattr(A, "__interpolate").scale_list, zeros(1, 1, 4, 4), None, [],
    ),
}
def status(function, arguments, named):
    child = os.fork()
    if not child:
        os.close(2)
        try:
            function(*arguments, **named)
        except ValueError:
            os._exit(3)
        except BaseException:
            os._exit(4)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
for name, (bare, *arguments) in calls.items():
    named = {"rounding_mode": "trunc"} if "div" in name else {}
    guarded = resolve(name).function
    print(name, status(bare, arguments, named) < 0, status(guarded, arguments, named))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_ends_the_process_without_guards_is_an_error_behind_them() -> None:
    lines = [line.split() for line in in_child(CRASHES).splitlines()]

    assert len(lines) == 4
    assert {name: status for name, _, status in lines} == {name: "3" for name, _, _ in lines}
    if torch.__version__.startswith("2.15"):  # another torch may have repaired them
        assert {name for name, died, _ in lines if died != "True"} == set()


def in_child(program: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
