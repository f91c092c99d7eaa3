"""Who did what to whom: an append-only log in which every change shows."""

from app.audit.chain import Head, Line
from app.audit.log import AuditLog, Event
from app.audit.verify import Report, verify

__all__ = ["AuditLog", "Event", "Head", "Line", "Report", "verify"]
