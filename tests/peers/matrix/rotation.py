"""Each key rotated under the clients: what was signed before still verifies, what is signed after verifies at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import samples
from by_tuf import Step, TufClients, step
from clients import Client, Place
from clients.countersign import Countersign
from model import Case, Identity, Kind, NotPossible, Outcome, Sample, SigningFailed
from tokens import OPERATOR

ROTATIONS = [
    ["tuf"],
    ["tsa"],
    ["sct"],
    ["ca"],
    ["tsa", "--new-root"],
    ["ca", "--new-root"],
    ["log", "--successor", "log2.localhost"],
]
CASE = Case(Kind.FILE)


def can_rotate(countersign: Countersign) -> bool:
    return countersign.run(OPERATOR, "trust", "rotate", "--help").code == 0


def rotate_all(
    place: Place,
    countersign: Countersign,
    signers: list[Client],
    verifiers: list[Client],
    old: list[Sample],
    by_tuf: TufClients | None,
    fetch: Callable[[], None],
) -> Iterator[Step]:
    """What was tried, each as it happens. `fetch` gets anew what the service hands out."""
    for rotation in ROTATIONS:
        name = f"trust rotate {' '.join(rotation)}"
        done = step(countersign.name, name, countersign.run(OPERATOR, "trust", "rotate", *rotation))
        yield done
        if not done.holds:
            return
        fetch()
        new = []
        for signer in signers:
            try:
                new.append(samples.make(place, signer, CASE, 0, name))
            except NotPossible:
                continue
            except SigningFailed as why:
                yield Step(signer.name, f"signs after {name}", False, str(why))
        for verifier in verifiers:
            for what, signed in (("before", old), ("after", new)):
                yield _verifies(verifier, f"verifies what {len(signed)} signed {what} {name}", signed)
        if by_tuf is not None:
            for what, signed in (("before", old), ("after", new)):
                for sample in signed[:1]:
                    yield from by_tuf.verify(
                        f"verifies what was signed {what} {name}, by way of TUF",
                        sample.bundle,
                        sample.artifact,
                        _identity(sample),
                    )


def _identity(sample: Sample) -> Identity:
    assert isinstance(sample.credential, Identity)
    return sample.credential


def _verifies(verifier: Client, what: str, signed: list[Sample]) -> Step:
    """Whether it accepts all of them."""
    wrong = []
    for sample in signed:
        try:
            verdicts = verifier.verify(sample, sample.credential)
        except NotPossible:
            continue
        wrong += [f"{sample.signer}: {one}" for one in verdicts if one.outcome is not Outcome.ACCEPTED]
    return Step(verifier.name, what, not wrong, "; ".join(wrong))
