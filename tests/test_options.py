"""The options of the scripts: what cannot be used is one line that names it, and exit status 2."""

import argparse

import pytest

from syft import options

SPLIT, WORKER, CLIENT = "split", "worker", "client"
MISTAKES = [
    (SPLIT, "--split halves", "'halves'; expected labels, iid, shards:N"),
    (SPLIT, "--split shards:0", "expected labels, iid, shards:N"),
    (SPLIT, "--split dirichlet:many", "expected labels, iid, shards:N"),
    (SPLIT, "--split_seed -1", "'-1'; expected an integer of at least 0"),
    (SPLIT, "--split_seed one", "'one'; expected an integer of at least 0"),
    (SPLIT, "--part 4/3", "'4/3'; expected K/N"),
    (SPLIT, "--part half", "'half'; expected K/N"),
    (WORKER, "--cert_file {file}", "TLS needs both --cert_file and --key_file"),
    (WORKER, "--client_ca_file {file}", "--client_ca_file is for TLS"),
    (WORKER, "--cert_file {file} --key_file {folder}/none", "cannot read {folder}/none"),
    (WORKER, "--host 0.0.0.0", "is reached from other machines, and there is no token"),
    (WORKER, "--token_file {folder}/none", "--token_file: [Errno 2] No such file"),
    (WORKER, "--token_file {folder}/empty", "empty is empty"),
    (WORKER, "--token_file {folder}/spaced", "one line of printable ASCII without spaces"),
    (WORKER, "--allow_origins localhost:8888/", "'localhost:8888/' is no origin"),
    (WORKER, "--epsilon 0", "'0'; expected a number above 0"),
    (CLIENT, "--cert_file {file}", "a certificate needs both --cert_file and --key_file"),
    (CLIENT, "--cert_file {file} --key_file {file}", "give --ca_file or --secure too"),
    (CLIENT, "--ca_file {folder}/none", "cannot read {folder}/none"),
]


def parsed(kind, arguments):
    """Return what the options of a kind of script give."""
    parser = argparse.ArgumentParser()
    if kind == SPLIT:
        options.add_split_options(parser)("--part", type=options.part_of_split)
        return parser.parse_args(arguments)
    if kind == WORKER:
        options.add_worker_options(parser)
        return options.worker_options(parser, parser.parse_args(arguments))
    options.add_client_options(parser)
    return options.client_options(parser, parser.parse_args(arguments))


@pytest.mark.parametrize(("kind", "line", "told"), MISTAKES, ids=[each[1] for each in MISTAKES])
def test_a_mistake_is_one_line_that_names_it(kind, line, told, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SYFT_TOKEN", "")
    for name, content in {"file": "1", "empty": "", "spaced": "two words"}.items():
        (tmp_path / name).write_text(content)
    named = {"file": tmp_path / "file", "folder": tmp_path}
    with pytest.raises(SystemExit, match="2"):
        parsed(kind, line.format(**named).split())
    assert told.format(**named) in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("kind", ["labels", "iid", "shards:2", "dirichlet:0.3"])
def test_each_kind_of_split_is_taken(kind):
    args = parsed(SPLIT, ["--split", kind, "--part", "2/3", "--split_seed", "0"])
    assert (args.split, args.part, args.split_seed) == (kind, (2, 3), 0)


@pytest.mark.parametrize(("text", "number"), [("0", 0.0), ("0.5", 0.5)])
def test_a_number_may_be_zero(text, number):
    assert options.not_negative(text) == number


@pytest.mark.parametrize("text", ["-1", "inf", "nan", "one"])
def test_a_number_below_zero_is_named(text):
    with pytest.raises(
        argparse.ArgumentTypeError, match=f"'{text}'; expected a number of at least"
    ):
        options.not_negative(text)
