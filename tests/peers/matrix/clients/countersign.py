"""Countersign's own command: signs through its API, with certificates and with a managed key; verifies offline, and images
also by asking the service."""

from __future__ import annotations

from pathlib import Path

from clients import Client, Place, identity_or_key, verdict
from model import ED25519PH, P384, Identity, Key, Kind, NotPossible, Sample, SigningFailed, Verdict
from process import Ran, run
from tokens import OPERATOR, PIPELINE

KEY = "release"
"""A managed key; scripts/interop lets the pipeline sign with it."""


class Countersign(Client):
    name = "countersign"
    lacks = {ED25519PH: tuple(Kind), P384: (Kind.FILE,)}

    def __init__(self, place: Place, binary: Path) -> None:
        super().__init__(place)
        self.binary = binary

    def run(self, identity: Identity, *arguments: object) -> Ran:
        """Runs the command with a token for that identity."""
        env = self.place.environment(
            COUNTERSIGN_SERVER=self.place.url,
            COUNTERSIGN_CA_FILE=str(self.place.authority),
            COUNTERSIGN_TOKEN_FILE=str(self.place.issuer.token_file(identity)),
        )
        return run([self.binary, *arguments], env)

    def sign(self, sample: Sample) -> None:
        if not isinstance(sample.credential, Identity):
            raise NotPossible("another row")
        self._sign(sample, sample.credential, [])

    def _sign(self, sample: Sample, by: Identity, key: list[object]) -> None:
        signed = ["attest", "--type", sample.kind.predicate_type, "--predicate", self.place.predicate]
        if sample.kind in (Kind.FILE, Kind.IMAGE):
            signed = ["sign"]
        attach = ["--attach"] if sample.kind.is_image else []
        where = [*attach, "--bundle", sample.bundle, sample.image or sample.artifact]
        ran = self.run(by, *signed, *key, *where)
        if ran.code != 0:
            raise SigningFailed(ran.said)

    def verify(self, sample: Sample, credential: object) -> list[Verdict]:
        subject = sample.digest if sample.kind.is_image else sample.artifact
        kind = ["--predicate-type", sample.kind.predicate_type]
        who = identity_or_key(credential, "--certificate-identity", "--certificate-oidc-issuer", "--key")
        files = ["--bundle", sample.bundle, "--trusted-root", self.place.trusted_root]
        verdicts = [verdict(self.run(PIPELINE, "verify", *files, *who, *kind, subject), "offline")]
        # A changed bundle in a registry is nothing to the service where it signed itself: it knows that from its log.
        knows = bool(sample.changed) and sample.signer == self.name
        if sample.kind.is_image and isinstance(credential, Identity) and not knows:
            verdicts.append(verdict(self.run(PIPELINE, "verify", *who, *kind, sample.image), "service"))
        return verdicts


class CountersignKey(Countersign):
    """The same with a key that the service manages. It verifies what the other verifies, so it is a signer alone."""

    name = "countersign --key"

    def __init__(self, place: Place, binary: Path) -> None:
        super().__init__(place, binary)
        made = self.run(OPERATOR, "key", "create", KEY)
        shown = self.run(OPERATOR, "key", "show", KEY, "--pem")
        if made.code != 0 or shown.code != 0:
            raise SigningFailed(f"{made.said} {shown.said}")
        self.key = Key(place.work / "release.pub")
        self.key.public.write_text(shown.stdout)

    def sign(self, sample: Sample) -> None:
        self._sign(sample, PIPELINE, ["--key", KEY])
