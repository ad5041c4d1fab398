"""Clients that are given nothing but the address of the TUF repository and its first root."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from clients import Place
from clients.cosign import Cosign
from clients.javascript import JavaScript
from clients.python import Python
from process import Ran, run
from tokens import ALICE


@dataclass(frozen=True)
class Step:
    """One thing that a client did, or refused."""

    client: str
    what: str
    holds: bool
    said: str


Say = Callable[[str, Ran, bool], Step]


def root(place: Place) -> bytes | None:
    """The first root of the repository; nothing where none is served."""
    answer = requests.get(f"{place.url}/tuf/1.root.json", verify=str(place.authority), timeout=20)
    return answer.content if answer.ok else None


def steps(place: Place, first: bytes, python: Python, javascript: JavaScript, cosign: Cosign | None) -> Iterator[Step]:
    """What is tried, each as it happens."""
    directory = place.work / "tuf"
    directory.mkdir()
    good, bad, tool = directory / "root.json", directory / "bad.json", directory / "tool"
    good.write_bytes(first)
    bad.write_bytes(_changed(first))
    tool.write_bytes(b"a tool, signed by way of TUF\n")
    yield from _python(place, python, good, bad, tool)
    yield from _javascript(place, javascript, good, bad)
    if cosign is not None:
        yield from _cosign(place, cosign, good, bad, tool)


def _say(client: str) -> Say:
    def say(what: str, ran: Ran, wanted: bool = True) -> Step:
        return Step(client, what, (ran.code == 0) is wanted and ran.code is not None, ran.said)

    return say


def _changed(first: bytes) -> bytes:
    """The root with one bit of its first signature changed."""
    document = json.loads(first)
    signature = document["signatures"][0]
    changed = bytearray.fromhex(signature["sig"])
    changed[len(changed) // 2] ^= 1
    signature["sig"] = changed.hex()
    return json.dumps(document).encode()


def _python(place: Place, python: Python, good: Path, bad: Path, tool: Path) -> Iterator[Step]:
    say = _say(python.name)
    url = f"{place.url}/tuf"
    bundle = tool.parent / "python.json"

    def sigstore(home: str, *words: object) -> Ran:
        (tool.parent / home).mkdir(exist_ok=True)
        token = {"SIGSTORE_IDENTITY_TOKEN": place.issuer.token(ALICE)}
        return python.commands.run(["--instance", url, *words], home=tool.parent / home, **token)

    verify = ["verify", "identity", "--bundle", bundle, "--cert-identity", ALICE.subject, "--cert-oidc-issuer", ALICE.issuer]
    yield say("does not know the instance yet", sigstore("python", "sign", "--bundle", bundle, tool), False)
    yield say("refuses a changed root", sigstore("python-bad", "trust-instance", bad), False)
    yield say("trust-instance", sigstore("python", "trust-instance", good))
    yield say("signs", sigstore("python", "sign", "--bundle", bundle, tool))
    yield say("verifies", sigstore("python", *verify, tool))
    yield say("verifies offline, from what it keeps", sigstore("python", *verify, "--offline", tool))


def _javascript(place: Place, javascript: JavaScript, good: Path, bad: Path) -> Iterator[Step]:
    say = _say(javascript.name)

    def fetch(first: Path, target: str) -> Ran:
        cache = good.parent / f"javascript-{first.stem}"
        words = ["fetch", "--mirror", f"{place.url}/tuf", "--root", first, "--cache", cache, "--target", target]
        return run([*javascript.command, *words], place.environment())

    yield say("refuses a changed root", fetch(bad, "trusted_root.json"), False)
    for target, served in (
        ("trusted_root.json", place.trusted_root),
        ("signing_config.v0.2.json", place.signing_config),
    ):
        fetched = fetch(good, target)
        same = fetched.code == 0 and json.loads(fetched.stdout) == json.loads(served.read_text())
        yield Step(javascript.name, f"fetches {target}, which is what is served beside it", same, fetched.said[-200:])


def _cosign(place: Place, cosign: Cosign, good: Path, bad: Path, tool: Path) -> Iterator[Step]:
    say = _say(cosign.name)
    url = f"{place.url}/tuf"
    bundle = tool.parent / "cosign.json"

    def initialize(cache: str, *words: object) -> Ran:
        ran = cosign.run("initialize", "--mirror", url, *words, TUF_ROOT=str(tool.parent / cache))
        # It warns and goes on where the repository has no such targets.
        return Ran(1, ran.stdout, ran.stderr) if "Could not fetch" in ran.stderr else ran

    def cached(*words: object) -> Ran:
        return cosign.run(*words, TUF_ROOT=str(tool.parent / "cosign"))

    who = ["--certificate-identity", ALICE.subject, "--certificate-oidc-issuer", ALICE.issuer]
    checksum = hashlib.sha256(good.read_bytes()).hexdigest()
    yield say("refuses a changed root", initialize("cosign-bad", "--root", bad), False)
    yield say("initialize --root FILE", initialize("cosign", "--root", good))
    from_url = ["--root", f"{url}/1.root.json", "--root-checksum", checksum]
    yield say("initialize --root URL --root-checksum", initialize("cosign-url", *from_url))
    token = ["--identity-token", place.issuer.token_file(ALICE)]
    yield say("sign-blob", cached("sign-blob", "--yes", *token, "--bundle", bundle, tool))
    yield say("verify-blob", cached("verify-blob", "--bundle", bundle, *who, tool))
