"""Certificate authorities for the tests of TLS."""

import itertools
from pathlib import Path
from typing import Any

import trustme


class Authority:
    """A certificate authority, with its certificates in files.

    Attributes:
        ca_path: its own certificate, which whoever trusts it needs.
    """

    def __init__(self, folder: Path) -> None:
        self.ca_path, self._folder, self._ca = folder / "ca.pem", folder, trustme.CA()
        self._ca.cert_pem.write_to_path(str(self.ca_path))
        self._numbers = itertools.count(1)

    def issue(self, *names: str, **options: Any) -> dict[str, Path]:
        """Return the files of a new certificate for these names, as the settings of either side
        that name them; `options` are those of trustme."""
        leaf = self._ca.issue_cert(*names, **options)
        number = next(self._numbers)
        paths = {kind: self._folder / f"{kind}-{number}.pem" for kind in ("cert", "key")}
        paths["cert"].write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(paths["key"]))
        return {"cert_path": paths["cert"], "key_path": paths["key"]}
