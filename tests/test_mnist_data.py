"""`unpack_mnist` on small archives made here, and once on the archives that come with the
project."""

import gzip
import hashlib
import os
import pickle
import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tutorial import mnist
from tutorial.mnist import DATA_ROOT, MNIST_FILES, DamagedArchiveError, RawFile, unpack_mnist

DEADLINE_S = 60
# The first is larger than two chunks, so that a reader can be stopped half-way.
CONTENTS = {
    "images": random.Random(0).randbytes(2 * mnist.CHUNK_BYTES + 1),
    "labels": b"\x00\x01\x02" * 100,
}
FILES = tuple(
    RawFile(name, hashlib.md5(content).hexdigest(), len(content))
    for name, content in CONTENTS.items()
)


def write_archives(root: Path) -> Path:
    """Make a raw directory with a good archive for each of FILES; return its path."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in CONTENTS.items():
        (raw / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=1))
    return raw


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_archives(tmp_path)


def assert_unpacked(raw: Path, *others: str) -> None:
    """Both raw files are right, and beside their archives there is nothing but `others`."""
    for name, content in CONTENTS.items():
        assert (raw / name).read_bytes() == content
    expected = {*CONTENTS, *(f"{name}.gz" for name in CONTENTS), *others}
    assert {path.name for path in raw.iterdir()} == expected


def test_every_archive_is_unpacked(tmp_path, raw):
    unpack_mnist(tmp_path, FILES)
    assert_unpacked(raw)


def test_new_files_follow_the_umask(tmp_path, raw):
    unpack_mnist(tmp_path, FILES)
    assert (raw / "labels").stat().st_mode == (raw / "labels.gz").stat().st_mode


def test_does_nothing_without_a_raw_directory(tmp_path):
    unpack_mnist(tmp_path, FILES)
    assert list(tmp_path.iterdir()) == []


def test_missing_archive_is_left_to_torchvision(tmp_path, raw):
    (raw / "images.gz").unlink()
    unpack_mnist(tmp_path, FILES)
    assert sorted(path.name for path in raw.iterdir()) == ["labels", "labels.gz"]


def test_good_file_is_not_rewritten(tmp_path, raw):
    unpack_mnist(tmp_path, FILES)
    os.utime(raw / "images", ns=(1, 1))
    before = (raw / "images").stat()
    unpack_mnist(tmp_path, FILES)
    after = (raw / "images").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_good_file_needs_no_archive(tmp_path, raw):
    unpack_mnist(tmp_path, FILES)
    (raw / "images.gz").write_bytes(b"damaged")
    unpack_mnist(tmp_path, FILES)
    assert (raw / "images").read_bytes() == CONTENTS["images"]


@pytest.mark.parametrize("content", [b"", CONTENTS["images"][:-1], CONTENTS["images"] + b"x"])
def test_file_of_wrong_size_is_replaced(tmp_path, raw, content):
    (raw / "images").write_bytes(content)
    unpack_mnist(tmp_path, FILES)
    assert_unpacked(raw)


def test_stale_temporary_file_does_not_matter(tmp_path, raw):
    (raw / "images.0123.tmp").write_bytes(b"half")
    unpack_mnist(tmp_path, FILES)
    assert_unpacked(raw, "images.0123.tmp")


def flip_a_bit_of_the_checksum(archive: bytes) -> bytes:
    """Return `archive` with another CRC in its last eight bytes (CRC, then length)."""
    return archive[:-8] + bytes([archive[-8] ^ 1]) + archive[-7:]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(
            lambda archive: b"<html>not found</html>", "Not a gzipped file", id="not gzip"
        ),
        pytest.param(
            lambda archive: archive[: len(archive) // 2],
            "ended before the end-of-stream",
            id="truncated",
        ),
        pytest.param(
            lambda archive: archive[:10] + b"\xff" * 50, "invalid block type", id="not deflate"
        ),
        pytest.param(flip_a_bit_of_the_checksum, "CRC check failed", id="wrong CRC"),
    ],
)
def test_damaged_archive_is_named(tmp_path, raw, damage, reason):
    archive = raw / "images.gz"
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(DamagedArchiveError) as raised:
        unpack_mnist(tmp_path, FILES)
    assert (raised.value.file, raised.value.expected_md5) == (archive, FILES[0].md5)
    assert reason in raised.value.actual
    assert sorted(path.name for path in raw.iterdir()) == ["images.gz", "labels.gz"]


def test_empty_archive_is_damaged(tmp_path, raw):
    # Python reads a file of 0 bytes as an empty gzip stream: only the sum tells.
    (raw / "images.gz").write_bytes(b"")
    with pytest.raises(DamagedArchiveError, match=hashlib.md5(b"").hexdigest()):
        unpack_mnist(tmp_path, FILES)


def test_wrong_content_keeps_the_old_file(tmp_path, raw):
    (raw / "images").write_bytes(b"old")
    (raw / "images.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(DamagedArchiveError) as raised:
        unpack_mnist(tmp_path, FILES)
    assert raised.value.actual == f"MD5 {hashlib.md5(b'other').hexdigest()}"
    assert sorted(path.name for path in raw.iterdir()) == ["images", "images.gz", "labels.gz"]
    assert (raw / "images").read_bytes() == b"old"


def test_the_error_of_a_damaged_archive_says_how_to_restore_it():
    error = DamagedArchiveError(Path("data/MNIST/raw/images.gz"), "aa", "MD5 bb")
    assert isinstance(error, ValueError)
    assert str(error) == (
        "cannot unpack data/MNIST/raw/images.gz: its content is MD5 bb; expected MD5 aa.\n"
        "  Restore it with: git checkout -- data/MNIST/raw\n"
        "  or delete it, and torchvision downloads the original files."
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_temporary_file_goes_when_writing_fails(tmp_path, raw, monkeypatch):
    def disk_full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", disk_full)
    with pytest.raises(OSError, match="No space left"):
        unpack_mnist(tmp_path, FILES)
    assert sorted(path.name for path in raw.iterdir()) == ["images.gz", "labels.gz"]


def test_several_threads_that_unpack_at_once_leave_whole_files(tmp_path, raw):
    count = 4
    start = threading.Barrier(count)

    def unpack() -> None:
        start.wait(DEADLINE_S)
        unpack_mnist(tmp_path, FILES)

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(unpack) for _ in range(count)]
        for future in futures:
            future.result(DEADLINE_S)
    assert_unpacked(raw)


def test_shipped_archives_are_what_torchvision_reads(tmp_path):
    from torchvision import datasets

    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in MNIST_FILES:
        shutil.copy(DATA_ROOT / "MNIST" / "raw" / f"{file.name}.gz", raw)
    unpack_mnist(tmp_path)
    assert [(raw / file.name).stat().st_size for file in MNIST_FILES] == [
        file.size for file in MNIST_FILES
    ]
    assert len(datasets.MNIST(root=tmp_path, train=True, download=False)) == 60_000
    assert len(datasets.MNIST(root=tmp_path, train=False, download=False)) == 10_000
