"""Running other programs: an environment of their own, a time limit, and what they said in one line."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

TIME_LIMIT = 90
"""Seconds that one call of a client may take."""
LONGEST = 400
"""Characters that are kept of what a program says."""
NOISE = re.compile(
    r"^(Generating ephemeral keys|Signing artifact|Using payload from|WARNING: |error during command execution)"
)
"""Lines that say nothing of the outcome, or say it again."""


@dataclass(frozen=True)
class Ran:
    code: int | None
    """None: it did not end in time."""
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """The lines that matter, the last ones first in weight, as one."""
        if self.code is None:
            return f"no answer in {TIME_LIMIT} seconds"
        return in_one_line(self.stderr) or in_one_line(self.stdout) or f"exit code {self.code}"


def in_one_line(text: str) -> str:
    lines = [" ".join(line.split()) for line in text.splitlines()]
    lines = [line for line in lines if line and not NOISE.match(line)]
    joined = " | ".join(lines)
    return joined if len(joined) <= LONGEST else "…" + joined[-LONGEST:]


def environment(home: Path, authority: Path, **more: str) -> dict[str, str]:
    """What clients get, and nothing of ours: they look for CI systems, proxies and credentials in it."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "COLUMNS": "1000",
        "SSL_CERT_FILE": str(authority),
        "REQUESTS_CA_BUNDLE": str(authority),
        "NODE_EXTRA_CA_CERTS": str(authority),
        **more,
    }


def run(arguments: list[object], env: dict[str, str], cwd: Path | None = None, given: str = "") -> Ran:
    """Runs a program with `given` as its standard input."""
    words = [str(word) for word in arguments]
    try:
        done = subprocess.run(
            words,
            env=env,
            cwd=cwd,
            input=given.encode(),
            capture_output=True,
            timeout=TIME_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return Ran(None, text(late.stdout), text(late.stderr))
    return Ran(done.returncode, text(done.stdout), text(done.stderr))


def text(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace")
