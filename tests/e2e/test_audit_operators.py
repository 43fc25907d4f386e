"""The audit of operators, on operators whose behaviour is known."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("cc"), reason="needs Linux and a C compiler"
)


def verdicts(tmp_path: Path, names: Iterable[str], *options: str) -> dict[str, str]:
    table = tmp_path / "audit.json"
    command = [
        sys.executable,
        "-m",
        "tests.e2e.audit_operators",
        "--quick",
        "--cases",
        "12",
        "--jobs",
        "2",
        "--out",
        str(table),
    ]

    done = subprocess.run(
        [*command, *options, *names], cwd=ROOT, capture_output=True, text=True, timeout=300
    )

    assert done.returncode == 0, done.stderr
    return {name: entry["verdict"] for name, entry in json.loads(table.read_text()).items()}


@needs_compiler
def test_the_audit_tells_safe_operators_from_those_that_crash_leak_hide_changes_or_grow(
    tmp_path: Path,
) -> None:
    expected = {
        "aten::relu": "safe",
        "aten::_reshape_alias": "crash",
        "aten::empty.memory_format": "leak",
        "aten::unsafe_chunk": "alias",
        "aten::repeat": "unbounded",
        "aten::rrelu_with_noise": "unnoticed",
    }

    found = verdicts(tmp_path, [overload.split(".")[0] for overload in expected], "--unguarded")

    assert {name: found[name] for name in expected} == expected


@needs_compiler
def test_the_audit_finds_nothing_behind_the_guards(tmp_path: Path) -> None:
    names = [
        "aten::empty",
        "aten::unsafe_chunk",
        "aten::repeat",
        "aten::_weight_norm",
        "aten::expand",
        "aten::rrelu_with_noise",
        "aten::_ctc_loss",
        "aten::_unsafe_view",
    ]

    found = verdicts(tmp_path, names)

    assert set(found.values()) == {"safe"}
