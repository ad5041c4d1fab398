"""The cells: what each verifier says of each sample, and of the same with one thing wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from clients import Client
from model import Case, Identity, Key, Kind, NotPossible, Outcome, Sample, Verdict


@dataclass(frozen=True)
class Upstream:
    """A refusal that is none of ours: two clients that do not agree, whoever runs the service."""

    signers: tuple[str, ...]
    verifier: str
    kinds: tuple[Kind, ...]
    words: str
    """What the refusal says."""
    why: str


UPSTREAM: list[Upstream] = [
    Upstream(
        ("cosign", "cosign --key"),
        "sigstore-python",
        (Kind.STATEMENT, Kind.ATTESTATION),
        "malformed in-toto statement",
        "cosign writes provenance under _type Statement/v0.1, and sigstore-python reads v1 alone",
    ),
    Upstream(
        ("cosign", "cosign --key"),
        "sigstore-python",
        (Kind.IMAGE,),
        "malformed in-toto statement",
        "cosign gives the subject of an image signature no name, and sigstore-python wants one",
    ),
]


@dataclass(frozen=True)
class Check:
    """One question to a verifier."""

    what: str
    wanted: Outcome
    verdicts: list[Verdict]

    @property
    def holds(self) -> bool:
        return bool(self.verdicts) and all(verdict.outcome is self.wanted for verdict in self.verdicts)

    @property
    def wrong(self) -> str:
        """What is not as wanted."""
        verdicts = [verdict for verdict in self.verdicts if verdict.outcome is not self.wanted]
        said = "; ".join(f"{verdict.outcome.value} {verdict}".strip() for verdict in verdicts)
        return f"{self.what}: {said}"


@dataclass
class Cell:
    """One signer, one verifier, one case."""

    case: Case
    signer: str
    verifier: str
    checks: list[Check] = field(default_factory=list)
    impossible: str = ""
    unsigned: str = ""
    upstream: str = ""

    @property
    def state(self) -> str:
        """In capitals where it is wrong."""
        if self.unsigned:
            return "NOT SIGNED"
        if self.impossible:
            return "not possible"
        if self.upstream:
            return "upstream"
        if self.checks and all(check.holds for check in self.checks):
            return "ok"
        accepted_wrongly = any(
            verdict.outcome is Outcome.ACCEPTED
            for check in self.checks
            if check.wanted is Outcome.REFUSED
            for verdict in check.verdicts
        )
        return "ACCEPTED" if accepted_wrongly else "REFUSED"

    @property
    def is_red(self) -> bool:
        return self.state.isupper()

    @property
    def note(self) -> str:
        """Why it is not ok."""
        wrong = [check.wrong for check in self.checks if not check.holds]
        return self.unsigned or self.impossible or self.upstream or "; ".join(wrong)


def judge(verifier: Client, sample: Sample, other_key: Key, number: int) -> Cell:
    """Puts a sample before a verifier. `number` says in what the other identity differs."""
    cell = Cell(sample.case, sample.signer, verifier.name)
    try:
        cell.checks.append(Check("what was signed", Outcome.ACCEPTED, verifier.verify_signer(sample)))
    except NotPossible as why:
        cell.impossible = str(why)
        return cell
    if not cell.checks[0].holds:
        cell.upstream = _upstream(cell, sample.kind)
        return cell
    what, stranger = _stranger(sample.credential, other_key, number)
    cell.checks.append(Check(what, Outcome.REFUSED, verifier.verify(sample, stranger)))
    for what, flawed in sample.flaws.items():
        cell.checks.append(Check(what, Outcome.REFUSED, verifier.verify(flawed, sample.credential)))
    return cell


def _upstream(cell: Cell, kind: Kind) -> str:
    for known in UPSTREAM:
        concerns = cell.signer in known.signers and cell.verifier == known.verifier and kind in known.kinds
        if concerns and known.words in cell.checks[0].wrong:
            return known.why
    return ""


def _stranger(credential: Identity | Key, other_key: Key, number: int) -> tuple[str, Identity | Key]:
    if isinstance(credential, Key):
        return "another key", other_key
    if number % 2:
        return "another issuer", Identity(credential.subject, f"{credential.issuer}/other")
    # It begins and ends like the one that signed, for whoever compares parts alone.
    return "another identity", Identity(f"{credential.subject}x", credential.issuer)
