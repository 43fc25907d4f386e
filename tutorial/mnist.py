"""Unpack the MNIST archives that come with the project, without importing torch.

The launcher calls `unpack_mnist` before anything heavy is imported, and so may every worker:
torchvision's `MNIST(root, download=True)` then finds the raw files and needs no network.
"""

import gzip
import hashlib
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

DATA_ROOT = Path(__file__).resolve().parent.parent / "data"
CHUNK_BYTES = 1 << 20


class RawFile(NamedTuple):
    """One unpacked file: its name, the MD5 sum of its content in hexadecimal, its size in bytes."""

    name: str
    md5: str
    size: int


MNIST_FILES = (
    RawFile("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb", 47_040_016),
    RawFile("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624", 60_008),
    RawFile("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea", 7_840_016),
    RawFile("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637", 10_008),
)


@dataclass(eq=False)
class DamagedArchiveError(ValueError):
    """An archive cannot be read to its end, or holds other content than expected.

    Attributes:
        file: the archive.
        expected_md5: MD5 sum that its unpacked content should have.
        actual: `MD5 <sum>` of the content found, or the reason why it cannot be read.
    """

    file: Path
    expected_md5: str
    actual: str

    def __str__(self) -> str:
        """Name the file, what was found, what was expected and how to get a good archive."""
        return (
            f"cannot unpack {self.file}: its content is {self.actual}; "
            f"expected MD5 {self.expected_md5}.\n"
            "  Restore it with: git checkout -- data/MNIST/raw\n"
            "  or delete it, and torchvision downloads the original files."
        )


def unpack_mnist(root: Path = DATA_ROOT, files: Sequence[RawFile] = MNIST_FILES) -> None:
    """Unpack each archive whose raw file is missing or has the wrong size.

    The archives are `root`/MNIST/raw/<name>.gz.

    A raw file gets its final name only when it is complete and its MD5 sum is right. Any number of
    processes may do this at the same time, and one that is killed half-way leaves nothing but a
    temporary file that nobody reads.

    Args:
        root: directory that is given to torchvision's `MNIST` as `root`.
        files: the raw files. One without an archive is left to torchvision, which downloads it.

    Raises:
        DamagedArchiveError: an archive is truncated, is not gzip, or its content has another MD5
            sum.
    """
    raw = root / "MNIST" / "raw"
    for file in files:
        archive = raw / f"{file.name}.gz"
        if archive.is_file() and not _has_size(raw / file.name, file.size):
            _unpack(archive, raw / file.name, file.md5)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _unpack(archive: Path, target: Path, expected_md5: str) -> None:
    temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        md5 = _decompress(archive, temporary)
        if md5 != expected_md5:
            raise DamagedArchiveError(archive, expected_md5, f"MD5 {md5}")
        temporary.replace(target)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DamagedArchiveError(archive, expected_md5, f"unreadable ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _decompress(archive: Path, target: Path) -> str:
    """Write the content of `archive` to the new file `target`; return its MD5 sum in hex."""
    digest = hashlib.md5(usedforsecurity=False)
    with gzip.open(archive) as content, target.open("xb") as output:
        while chunk := content.read(CHUNK_BYTES):
            output.write(chunk)
            digest.update(chunk)
    return digest.hexdigest()
