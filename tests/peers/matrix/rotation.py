"""Each key rotated under the clients: what was signed before still verifies, what is signed after verifies at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial

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


class Rotation:
    """The clients, what they signed before anything was rotated, and `fetch`, which gets anew what is handed out."""

    def __init__(
        self,
        place: Place,
        countersign: Countersign,
        signers: list[Client],
        verifiers: list[Client],
        old: list[Sample],
        by_tuf: TufClients | None,
        fetch: Callable[[], None],
        pool: Executor,
    ) -> None:
        self.place, self.countersign, self.signers, self.verifiers = place, countersign, signers, verifiers
        self.old, self.by_tuf, self.fetch, self.pool = old, by_tuf, fetch, pool

    def all(self) -> Iterator[tuple[str, list[Step]]]:
        """Each rotation with what came of it, as it happens; none after one that the service did not do."""
        for rotation in ROTATIONS:
            name = f"trust rotate {' '.join(rotation)}"
            rotated = step(self.countersign.name, name, self.countersign.run(OPERATOR, "trust", "rotate", *rotation))
            if not rotated.holds:
                yield name, [rotated]
                return
            self.fetch()
            yield name, [rotated, *self._after(name)]

    def _after(self, name: str) -> Iterator[Step]:
        new: list[Sample] = []
        for made in self.pool.map(partial(self._sign, name), self.signers):
            if isinstance(made, Sample):
                new.append(made)
            elif made is not None:
                yield made
        questions = [
            (f"verifies what {sample.signer} signed {when} {name}", verifier, sample)
            for when, signed in (("before", self.old), ("after", new))
            for sample in signed
            for verifier in self.verifiers
        ]
        yield from (answer for answer in self.pool.map(_verify, questions) if answer is not None)
        if self.by_tuf is None:
            return
        for when, signed in (("before", self.old), ("after", new)):
            for sample in signed[:1]:
                what = f"verifies by way of TUF what {sample.signer} signed {when} {name}"
                assert isinstance(sample.credential, Identity)
                yield from self.by_tuf.verify(what, sample.bundle, sample.artifact, sample.credential)

    def _sign(self, name: str, signer: Client) -> Sample | Step | None:
        try:
            return samples.make(self.place, signer, CASE, 0, name)
        except NotPossible:
            return None
        except SigningFailed as why:
            return Step(signer.name, f"signs after {name}", False, str(why))


def _verify(question: tuple[str, Client, Sample]) -> Step | None:
    what, verifier, sample = question
    try:
        verdicts = verifier.verify_signer(sample)
    except NotPossible:
        return None
    wrong = [str(one) for one in verdicts if one.outcome is not Outcome.ACCEPTED]
    return Step(verifier.name, what, not wrong, "; ".join(wrong))
