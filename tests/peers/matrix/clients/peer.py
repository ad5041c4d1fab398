"""A library behind a program of ours: `sign` and `verify` with the options that tests/peers/js/peer.cjs documents."""

from __future__ import annotations

from clients import Client, identity_or_key, options, verdict
from model import Identity, NotPossible, Sample, SigningFailed, Verdict
from process import run
from statements import statement


class PeerProgram(Client):
    """Signs files and whatever statement it is given, and knows nothing of registries."""

    command: list[object]
    checks_when_signing = False
    """Whether it takes a trusted root, to verify what it has signed."""

    def sign(self, sample: Sample) -> None:
        if not isinstance(sample.credential, Identity):
            raise NotPossible("the program signs with certificates alone")
        self._sign(sample, {"--token-file": self.place.issuer.token_file(sample.credential)})

    def _sign(self, sample: Sample, who: dict[str, object]) -> None:
        given = {
            "--signing-config": self.place.signing_config,
            "--trusted-root": self.place.trusted_root if self.checks_when_signing else None,
            "--bundle": sample.bundle,
            **who,
        }
        if sample.kind.is_statement:
            given["--statement"] = statement(sample, self.place.predicate)
        else:
            given["--file"] = sample.artifact
        ran = run([*self.command, "sign", *options(given)], self.place.environment())
        if ran.code != 0:
            raise SigningFailed(ran.said)

    def verify(self, sample: Sample, credential: object) -> list[Verdict]:
        who = identity_or_key(credential, "--identity", "--issuer", "--key")
        if sample.kind.is_statement:
            subject = ["--subject", sample.digest if sample.kind.is_image else sample.artifact]
        else:
            subject = ["--file", sample.artifact]
        files = ["--trusted-root", self.place.trusted_root, "--bundle", sample.bundle]
        return [verdict(run([*self.command, "verify", *files, *who, *subject], self.place.environment()))]
