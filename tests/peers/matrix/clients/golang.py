"""The sigstore-go library, behind tests/peers/sigstore-go."""

from __future__ import annotations

from pathlib import Path

from clients import Place
from clients.peer import PeerProgram
from model import Key, Sample


class Golang(PeerProgram):
    name = "sigstore-go"
    checks_when_signing = True

    def __init__(self, place: Place, program: Path) -> None:
        super().__init__(place)
        self.command = [program]


class GolangKey(Golang):
    """The same with a key of its own for each signature, of a kind that others sign with less often. It verifies what the
    other verifies, so it is a signer alone.
    """

    def __init__(self, place: Place, program: Path, name: str, algorithm: str) -> None:
        super().__init__(place, program)
        self.name, self.algorithm = f"sigstore-go {name}", algorithm

    def sign(self, sample: Sample) -> None:
        public = sample.bundle.with_suffix(".pub")
        self._sign(sample, {"--algorithm": self.algorithm, "--public-key": public})
        sample.credential = Key(public, self.algorithm)
