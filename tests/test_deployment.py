"""Certificates, and the files that run workers as services: their syntax, and their options."""

import configparser
import datetime
import shlex
import shutil
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from syft import options, worker
from tutorial import certificates

REPOSITORY = Path(__file__).parent.parent
DEPLOY = REPOSITORY / "deploy"
UNIT = DEPLOY / "syft-worker@.service"


@pytest.fixture
def folder(tmp_path):
    """Certificates of two workers."""
    names = ["alice=192.0.2.11,alice.example.org", "bob=192.0.2.12"]
    assert certificates.main([*names, "--folder", str(tmp_path / "certificates")]) == 0
    return tmp_path / "certificates"


def test_each_worker_has_a_certificate_of_its_own_that_the_authority_signed(folder):
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        "alice/server.key",
        "alice/server.pem",
        "authority.pem",
        "bob/server.key",
        "bob/server.pem",
    ]
    keys = {(folder / name / "server.key").read_text() for name in ("alice", "bob")}
    assert len(keys) == 2
    for name in ("alice", "bob"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / name / "server.pem", folder / name / "server.key")
        context.load_verify_locations(folder / "authority.pem")


def test_only_their_owner_may_read_the_keys(folder):
    for path in folder.rglob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_certificate_names_its_worker_and_is_valid_for_a_year(folder):
    found = ssl._ssl._test_decode_cert(str(folder / "alice" / "server.pem"))
    assert sorted(value for _, value in found["subjectAltName"]) == [
        "192.0.2.11",
        "alice.example.org",
    ]
    left = ssl.cert_time_to_seconds(found["notAfter"]) - datetime.datetime.now().timestamp()
    assert 364 < left / 86400 <= 365


def test_certificates_are_not_replaced(folder, capsys):
    assert certificates.main(["alice=localhost", "--folder", str(folder)]) == 2
    assert "is there already; remove it first" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["alice", "=localhost", "../alice=localhost", "alice=a,,b"])
def test_what_is_no_worker_with_addresses_is_refused(text, tmp_path, capsys):
    with pytest.raises(SystemExit):
        certificates.main([text, "--folder", str(tmp_path / "certificates")])
    assert f"{text!r}; expected NAME=HOST" in capsys.readouterr().err


def check_options(monkeypatch, tmp_path, words):
    """Have the worker's own parser take a command line, with files and tokens in place."""
    monkeypatch.setenv("SYFT_TOKEN", "secret")
    for number, word in enumerate(words):
        if word in ("--cert_file", "--key_file", "--token_file"):
            (tmp_path / word).write_text("secret")
            words[number + 1] = str(tmp_path / word)
    return worker.define_and_get_arguments(words)


def test_the_options_of_the_containers_are_the_workers(monkeypatch, tmp_path):
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(services) == {"paris", "oslo", "rome", "coordinator"}
    for name in ("paris", "oslo", "rome"):
        python, m, module, *words = shlex.split(services[name]["command"])
        assert (python, m, module) == ("python", "-m", "syft.worker")
        assert check_options(monkeypatch, tmp_path, words).id == name


def test_the_options_of_the_coordinators_container_are_those_of_the_examples(monkeypatch, tmp_path):
    yaml = pytest.importorskip("yaml")
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["coordinator"]
    python, script, *words = shlex.split(service["command"])
    assert (python, script) == ("python", "train.py")
    monkeypatch.setenv("SYFT_TOKEN", "secret")
    assert words == ["--ca_file", "/authority.pem"]
    assert "../certificates/authority.pem:/authority.pem:ro" in service["volumes"]
    (tmp_path / "authority.pem").touch()
    parser = options.Parser("train.py")
    options.add_client_options(parser)
    given = parser.parse_args(["--ca_file", str(tmp_path / "authority.pem")])
    assert options.client_options(parser, given)["secure"] is True


def test_the_image_gets_what_is_built_and_no_secrets():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = {name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]}
    assert copied == {"pyproject.toml", "README.md", "LICENSE", "syft"}
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert all(name in project for name in copied - {"pyproject.toml"})


def test_each_container_gets_its_own_key_and_the_coordinator_none(monkeypatch):
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        given = {each.split(":")[0] for each in service["volumes"] if "certificates" in each}
        own = "authority.pem" if name == "coordinator" else name
        assert given == {f"../certificates/{own}"}


def test_the_options_of_the_unit_are_the_workers(monkeypatch, tmp_path):
    text = UNIT.read_text()
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string(text.replace("\\\n", " "))
    (options,) = [line.partition("=")[2] for line in text.splitlines() if "WORKER_OPTIONS=" in line]
    start = (
        parser["Service"]["ExecStart"].replace("$WORKER_OPTIONS", options).replace("%i", "paris")
    )
    python, m, module, *words = shlex.split(start)
    assert (python, m, module) == ("/opt/syft/bin/python", "-m", "syft.worker")
    assert check_options(monkeypatch, tmp_path, words).id == "paris"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path):
    # What is not on this machine would be an error of its own.
    text = UNIT.read_text().replace("/opt/syft/bin/python", shutil.which("true"))
    (tmp_path / UNIT.name).write_text(text.replace("User=syft", ""))
    found = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / UNIT.name.replace("@", "@paris"))],
        capture_output=True,
        text=True,
    )
    assert UNIT.name not in found.stderr, found.stderr


def test_tokens_and_keys_are_not_taken_into_the_repository():
    for name in ("token", "certificates/alice/server.key"):
        command = ["git", "check-ignore", "--quiet", name]
        assert subprocess.run(command, cwd=REPOSITORY).returncode == 0, name
