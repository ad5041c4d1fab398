"""The nouns: what is signed, by whom, and what a verifier says of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

IMAGE_SIGNATURE = "https://sigstore.dev/cosign/sign/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
RSA = "PKIX_RSA_PKCS1V15_3072_SHA256"
P384 = "PKIX_ECDSA_P384_SHA_384"
ED25519PH = "PKIX_ED25519_PH"


class Kind(enum.Enum):
    """What is signed. `value` is how it is printed."""

    FILE = "signature of a file"
    STATEMENT = "attestation of a file"
    IMAGE = "signature of an image"
    ATTESTATION = "attestation of an image"

    @property
    def is_image(self) -> bool:
        return self in (Kind.IMAGE, Kind.ATTESTATION)

    @property
    def is_statement(self) -> bool:
        """Whether the bundle holds an envelope with a statement."""
        return self is not Kind.FILE

    @property
    def predicate_type(self) -> str:
        return PROVENANCE if self in (Kind.STATEMENT, Kind.ATTESTATION) else IMAGE_SIGNATURE


@dataclass(frozen=True)
class Case:
    """One table of the matrix: a kind, and for images the registry that they are in."""

    kind: Kind
    registry: str = ""
    host: str = ""

    @property
    def title(self) -> str:
        return f"{self.kind.value}, in {self.registry}" if self.registry else self.kind.value

    @property
    def slug(self) -> str:
        words = [self.kind.name.lower(), *self.registry.split()[:1]]
        return "-".join(words)


@dataclass(frozen=True)
class Identity:
    """Who a certificate must be for."""

    subject: str
    issuer: str


@dataclass(frozen=True)
class Key:
    """Whose key must have signed: a public key, PEM."""

    public: Path
    algorithm: str = ""
    """How it signs, where not every client can verify that."""


@dataclass
class Sample:
    """Something that was signed."""

    case: Case
    signer: str
    credential: Identity | Key
    artifact: Path
    """The file, or the image's manifest."""
    digest: str
    """Of the artifact, `sha256:…`."""
    bundle: Path
    image: str = ""
    """`registry/repository@sha256:…`, or nothing."""
    changed: str = ""
    """What of the bundle was changed, if anything was."""
    flaws: dict[str, Sample] = field(default_factory=dict)
    """The same with one thing wrong, by what that is."""

    @property
    def kind(self) -> Kind:
        return self.case.kind


class Outcome(enum.Enum):
    ACCEPTED = "accepted"
    REFUSED = "refused"
    FAILED = "failed"
    """Neither: it could not tell, did not end, or did not understand the question."""


@dataclass(frozen=True)
class Verdict:
    """What one verifier said, and by which way it was asked."""

    outcome: Outcome
    said: str
    way: str = ""

    def __str__(self) -> str:
        way = f"{self.way}: " if self.way else ""
        return f"{way}{self.said}"


class NotPossible(Exception):
    """A client has no way to do this; says why."""


class SigningFailed(Exception):
    """A client could have signed and did not."""
