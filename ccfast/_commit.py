"""The commit of this ccfast."""

from __future__ import annotations

import importlib
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: The sources of ccfast; a change of these after the commit is marked with a +.
SOURCES = ("ccfast", "csrc", "setup.py", "build_support", "benchmarks/*.py")


def commit() -> str:
    """The commit of ccfast's repository, with a + if the sources differ from it.

    Without a repository: the environment variable CCFAST_COMMIT, or the commit that was built, or "unknown".
    """
    if "CCFAST_COMMIT" in os.environ:
        return os.environ["CCFAST_COMMIT"]
    return repository_commit() or _built_commit() or "unknown"


def repository_commit() -> str | None:
    """The commit of ccfast's own repository, or None if there is no repository."""
    if not ((ROOT / ".git").exists() and (ROOT / "csrc").is_dir()):
        return None
    try:
        found = _git("rev-parse", "--short=10", "HEAD")
        return found + ("+" if _git("status", "--porcelain", "--", *SOURCES) else "")
    except (OSError, subprocess.CalledProcessError):  # no git, or a folder that it does not trust
        return None


def _built_commit() -> str | None:
    try:
        config = importlib.import_module("ccfast._build_config")
    except ImportError:
        return None
    return getattr(config, "COMMIT", None)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
