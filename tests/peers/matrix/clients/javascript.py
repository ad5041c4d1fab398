"""npm `@sigstore/sign` and `@sigstore/verify`, behind tests/peers/js."""

from __future__ import annotations

from pathlib import Path

from clients import Place
from clients.peer import PeerProgram
from model import ED25519PH, P384, Kind


class JavaScript(PeerProgram):
    name = "sigstore-js"
    lacks = {ED25519PH: tuple(Kind), P384: tuple(kind for kind in Kind if kind.is_statement)}

    def __init__(self, place: Place, node: Path, program: Path) -> None:
        super().__init__(place)
        self.command = [node, program]
