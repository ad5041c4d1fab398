"""Clients of the service, each as signer and verifier; what one cannot do it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import process
from model import Key, Kind, NotPossible, Outcome, Sample, Verdict
from oci import Registry
from tokens import Issuer


@dataclass(frozen=True)
class Place:
    """Where everything is that clients need."""

    work: Path
    url: str
    """Of the service."""
    authority: Path
    """Who vouches for its TLS certificate, PEM."""
    trusted_root: Path
    signing_config: Path
    client_trust_config: Path
    predicate: Path
    """A SLSA provenance predicate."""
    issuer: Issuer
    registries: dict[str, Registry]
    """By host."""

    def environment(self, **more: str) -> dict[str, str]:
        return process.environment(self.work / "home", self.authority, **more)


class Client:
    """One client. `name` is how it is printed."""

    name = ""
    lacks: dict[str, tuple[Kind, ...]] = {}
    """By algorithms of keys: what was signed so, and this has no way to verify."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def sign(self, sample: Sample) -> None:
        """Signs and writes `sample.bundle`, or attaches the bundle to the image in its registry.

        Raises `NotPossible` and `SigningFailed`.
        """
        raise NotImplementedError

    def verify(self, sample: Sample, credential: object) -> list[Verdict]:
        """Asks whether this is by that credential, each way that the client has. Raises `NotPossible`."""
        raise NotImplementedError

    def verify_signer(self, sample: Sample) -> list[Verdict]:
        """Asks whether this is by whoever signed it. Raises `NotPossible`, also where it lacks the algorithm and said no."""
        verdicts = self.verify(sample, sample.credential)
        algorithm = getattr(sample.credential, "algorithm", "")
        if sample.kind in self.lacks.get(algorithm, ()) and all(verdict.outcome is Outcome.REFUSED for verdict in verdicts):
            raise NotPossible(f"does not verify {algorithm}, and refuses it")
        return verdicts


def verdict(ran: process.Ran, way: str = "", refusals: tuple[int, ...] = (1,)) -> Verdict:
    """What an exit code means: 0 accepts, those of `refusals` refuse, all others fail."""
    if ran.code == 0:
        return Verdict(Outcome.ACCEPTED, "", way)
    outcome = Outcome.REFUSED if ran.code in refusals else Outcome.FAILED
    return Verdict(outcome, ran.said, way)


def options(pairs: dict[str, object]) -> list[object]:
    """`{"--name": value}` as arguments; those without a value are left out."""
    return [word for name, value in pairs.items() if value is not None for word in (name, value)]


def identity_or_key(credential: object, identity: str, issuer: str, key: str) -> list[object]:
    """A credential as arguments with these names."""
    if isinstance(credential, Key):
        return [key, credential.public]
    return [identity, credential.subject, issuer, credential.issuer]
