"""The sigstore-go library, behind tests/peers/sigstore-go."""

from __future__ import annotations

from pathlib import Path

from clients import Place
from clients.peer import PeerProgram


class Golang(PeerProgram):
    name = "sigstore-go"
    checks_when_signing = True

    def __init__(self, place: Place, program: Path) -> None:
        super().__init__(place)
        self.command = [program]
