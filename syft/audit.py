"""The documented import path of AuditLog; the code is in `syft.access.audit`."""

from syft.access.audit import AuditLog

__all__ = ["AuditLog"]
