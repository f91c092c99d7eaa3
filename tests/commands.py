"""The command line in a process of its own."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FACEID = [sys.executable, "-W", "error", "-c", "from app.cli import main; main()"]


def environment(**variables: str) -> dict[str, str]:
    """That of this process, without whatever it sets of faceid's."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FACEID_")}
    return inherited | {"PYTHONPATH": str(ROOT)} | variables
