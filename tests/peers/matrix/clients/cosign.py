"""Cosign 3, with certificates and with a key pair."""

from __future__ import annotations

from pathlib import Path

from clients import Client, Place, identity_or_key, verdict
from model import ED25519PH, P384, Identity, Key, Kind, NotPossible, Sample, SigningFailed, Verdict
from process import Ran, run

PASSWORD = "interop"
PROVENANCE = ["--type", "slsaprovenance1"]
VERIFY = {
    Kind.FILE: ["verify-blob"],
    Kind.STATEMENT: ["verify-blob-attestation", *PROVENANCE],
    Kind.IMAGE: ["verify"],
    Kind.ATTESTATION: ["verify-attestation", *PROVENANCE],
}


class Cosign(Client):
    name = "cosign"
    lacks = {ED25519PH: tuple(Kind), P384: tuple(Kind)}

    def __init__(self, place: Place, binary: Path) -> None:
        super().__init__(place)
        self.binary = binary

    def run(self, *words: object, **more: str) -> Ran:
        return run([self.binary, *words], self.place.environment(COSIGN_PASSWORD=PASSWORD, **more))

    def sign(self, sample: Sample) -> None:
        if not isinstance(sample.credential, Identity):
            raise NotPossible("another row")
        self._sign(sample, ["--identity-token", self.place.issuer.token_file(sample.credential)])

    def _sign(self, sample: Sample, who: list[object]) -> None:
        predicate = [*PROVENANCE, "--predicate", self.place.predicate]
        command = {
            Kind.FILE: ["sign-blob"],
            Kind.STATEMENT: ["attest-blob", *predicate],
            Kind.IMAGE: ["sign"],
            Kind.ATTESTATION: ["attest", *predicate],
        }[sample.kind]
        services = ["--signing-config", self.place.signing_config, "--trusted-root", self.place.trusted_root]
        # An image's bundle is read back from the registry.
        where = [sample.image] if sample.kind.is_image else ["--bundle", sample.bundle, sample.artifact]
        ran = self.run(*command, "--yes", *services, *who, *where)
        if ran.code != 0:
            raise SigningFailed(ran.said)

    def verify(self, sample: Sample, credential: object) -> list[Verdict]:
        who = identity_or_key(credential, "--certificate-identity", "--certificate-oidc-issuer", "--key")
        where = [sample.image] if sample.kind.is_image else ["--bundle", sample.bundle, sample.artifact]
        trust = ["--trusted-root", self.place.trusted_root]
        return [verdict(self.run(*VERIFY[sample.kind], *trust, *who, *where))]


class CosignKey(Cosign):
    """The same with a key pair of its own. It verifies what the other verifies, so it is a signer alone."""

    name = "cosign --key"

    def __init__(self, place: Place, binary: Path) -> None:
        super().__init__(place, binary)
        directory = place.work / "cosign-key"
        directory.mkdir()
        made = run([binary, "generate-key-pair"], place.environment(COSIGN_PASSWORD=PASSWORD), cwd=directory)
        if made.code != 0:
            raise SigningFailed(made.said)
        self.private, self.key = directory / "cosign.key", Key(directory / "cosign.pub")

    def sign(self, sample: Sample) -> None:
        self._sign(sample, ["--key", self.private])
