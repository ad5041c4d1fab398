"""Clients that are given nothing but the address of the TUF repository and its first root."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from clients import Place
from clients.cosign import Cosign
from clients.javascript import JavaScript
from clients.python import Python
from model import Identity
from process import Ran, run
from tokens import ALICE


@dataclass(frozen=True)
class Step:
    """One thing that a client did, or refused."""

    client: str
    what: str
    holds: bool
    said: str


def step(client: str, what: str, ran: Ran, wanted: bool = True) -> Step:
    """A step that ends with exit code 0, or, where that is not wanted, with another one."""
    return Step(client, what, ran.code is not None and (ran.code == 0) is wanted, ran.said)


def first_root(place: Place) -> bytes | None:
    """The first root of the repository; nothing where none is served."""
    answer = requests.get(f"{place.url}/tuf/1.root.json", verify=str(place.authority), timeout=20)
    return answer.content if answer.ok else None


class TufClients:
    """The clients, each with a home of its own that knows the repository alone."""

    def __init__(
        self, place: Place, first: bytes, python: Python, javascript: JavaScript, cosign: Cosign | None
    ) -> None:
        self.place, self.python, self.javascript, self.cosign = place, python, javascript, cosign
        self.url = f"{place.url}/tuf"
        self.directory = place.work / "tuf"
        self.directory.mkdir()
        self.good, self.bad, self.tool = (self.directory / name for name in ("root.json", "bad.json", "tool"))
        self.good.write_bytes(first)
        self.bad.write_bytes(_changed(first))
        self.tool.write_bytes(b"a tool, signed by way of TUF\n")

    def begin(self) -> Iterator[Step]:
        """From the first root to a signature and its verification, each as it happens."""
        yield from self._python()
        yield from self._javascript()
        if self.cosign is not None:
            yield from self._cosign()

    def verify(self, what: str, bundle: Path, artifact: Path, identity: Identity) -> Iterator[Step]:
        """Verifies a file's bundle with what the clients have, and fetch if they find it too old."""
        yield step(self.python.name, what, self._sigstore("python", *_who_python(bundle, identity), artifact))
        if self.cosign is not None:
            yield step(self.cosign.name, what, self._cosign_cached(*_who_cosign(bundle, identity), artifact))

    def _sigstore(self, home: str, *words: object) -> Ran:
        (self.directory / home).mkdir(exist_ok=True)
        token = {"SIGSTORE_IDENTITY_TOKEN": self.place.issuer.token(ALICE)}
        return self.python.commands.run(["--instance", self.url, *words], home=self.directory / home, **token)

    def _python(self) -> Iterator[Step]:
        name, bundle, tool = self.python.name, self.directory / "python.json", self.tool
        sign, verify = ["sign", "--bundle", bundle, tool], [*_who_python(bundle, ALICE), tool]
        yield step(name, "does not know the instance yet", self._sigstore("python", *sign), False)
        yield step(name, "refuses a changed root", self._sigstore("python-bad", "trust-instance", self.bad), False)
        yield step(name, "trust-instance", self._sigstore("python", "trust-instance", self.good))
        yield step(name, "signs", self._sigstore("python", *sign))
        yield step(name, "verifies", self._sigstore("python", *verify))
        yield step(name, "verifies offline, from what it keeps", self._sigstore("python", *verify, "--offline"))

    def _fetch(self, first: Path, target: str) -> Ran:
        cache = self.directory / f"javascript-{first.stem}"
        words = ["fetch", "--mirror", self.url, "--root", first, "--cache", cache, "--target", target]
        return run([*self.javascript.command, *words], self.place.environment())

    def _javascript(self) -> Iterator[Step]:
        name = self.javascript.name
        yield step(name, "refuses a changed root", self._fetch(self.bad, "trusted_root.json"), False)
        for served in (self.place.trusted_root, self.place.signing_config):
            fetched = self._fetch(self.good, served.name)
            same = fetched.code == 0 and json.loads(fetched.stdout) == json.loads(served.read_text())
            yield Step(name, f"fetches {served.name}, which is what is served beside it", same, fetched.said[-200:])

    def _cosign_cached(self, *words: object, cache: str = "cosign") -> Ran:
        return self.cosign.run(*words, TUF_ROOT=str(self.directory / cache))

    def _initialize(self, cache: str, *words: object) -> Ran:
        ran = self._cosign_cached("initialize", "--mirror", self.url, *words, cache=cache)
        # It warns and goes on where the repository has no such targets.
        return Ran(1, ran.stdout, ran.stderr) if "Could not fetch" in ran.stderr else ran

    def _cosign(self) -> Iterator[Step]:
        name, bundle, tool = self.cosign.name, self.directory / "cosign.json", self.tool
        checksum = hashlib.sha256(self.good.read_bytes()).hexdigest()
        from_url = ["--root", f"{self.url}/1.root.json", "--root-checksum", checksum]
        yield step(name, "refuses a changed root", self._initialize("cosign-bad", "--root", self.bad), False)
        yield step(name, "initialize --root FILE", self._initialize("cosign", "--root", self.good))
        yield step(name, "initialize --root URL --root-checksum", self._initialize("cosign-url", *from_url))
        sign = ["sign-blob", "--yes", "--identity-token", self.place.issuer.token_file(ALICE), "--bundle", bundle]
        yield step(name, "sign-blob", self._cosign_cached(*sign, tool))
        yield step(name, "verify-blob", self._cosign_cached(*_who_cosign(bundle, ALICE), tool))


def _who_python(bundle: Path, who: Identity) -> list[object]:
    named = ["--cert-identity", who.subject, "--cert-oidc-issuer", who.issuer]
    return ["verify", "identity", "--bundle", bundle, *named]


def _who_cosign(bundle: Path, who: Identity) -> list[object]:
    named = ["--certificate-identity", who.subject, "--certificate-oidc-issuer", who.issuer]
    return ["verify-blob", "--bundle", bundle, *named]


def _changed(first: bytes) -> bytes:
    """The root with one bit of its first signature changed."""
    document = json.loads(first)
    signature = document["signatures"][0]
    changed = bytearray.fromhex(signature["sig"])
    changed[len(changed) // 2] ^= 1
    signature["sig"] = changed.hex()
    return json.dumps(document).encode()
