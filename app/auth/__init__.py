"""API keys: who calls, and what they may do."""

from app.auth.file import create, first, read, revoke, rotate
from app.auth.keys import SCOPES, Key, Scope
from app.auth.ring import KeyRing, Unproven

__all__ = [
    "SCOPES",
    "Key",
    "KeyRing",
    "Scope",
    "Unproven",
    "create",
    "first",
    "read",
    "revoke",
    "rotate",
]
