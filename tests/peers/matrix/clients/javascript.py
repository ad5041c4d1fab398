"""npm `@sigstore/sign` and `@sigstore/verify`, behind tests/peers/js."""

from __future__ import annotations

from pathlib import Path

from clients import Place
from clients.peer import PeerProgram


class JavaScript(PeerProgram):
    name = "sigstore-js"

    def __init__(self, place: Place, node: Path, program: Path) -> None:
        super().__init__(place)
        self.command = [node, program]
