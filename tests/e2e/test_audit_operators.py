"""The audit of operators, on operators whose behaviour is known."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="needs Linux and a C compiler")
def test_the_audit_tells_safe_operators_from_those_that_crash_leak_hide_an_alias_or_grow(tmp_path: Path) -> None:
    expected = {
        "aten::relu": "safe",
        "aten::_reshape_alias": "crash",
        "aten::empty.memory_format": "leak",
        "aten::unsafe_chunk": "alias",
        "aten::repeat": "unbounded",
    }
    table = tmp_path / "audit.json"
    names = [overload.split(".")[0] for overload in expected]
    command = [
        sys.executable,
        "-m",
        "tests.e2e.audit_operators",
        "--quick",
        "--cases",
        "12",
        "--out",
        str(table),
        *names,
    ]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    verdicts = {name: entry["verdict"] for name, entry in json.loads(table.read_text()).items()}
    assert {name: verdicts[name] for name in expected} == expected
