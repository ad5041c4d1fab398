"""Signer x verifier: every client signs at the service, and every client verifies what every other signed.

    python tests/peers/matrix issuer DIR      makes a token issuer's key, and jwks.json for the service
    python tests/peers/matrix run OPTION…     against a running service; scripts/interop says with what

Exit codes of `run`: 0 all cells that can be are green, 1 not, 2 it could not be tried.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import report
import rotation
import samples
import timing
from by_tuf import Step, TufClients, first_root
from cells import Cell, judge
from clients import Client, Place
from clients.cosign import Cosign, CosignKey
from clients.countersign import Countersign, CountersignKey
from clients.golang import Golang, GolangKey
from clients.javascript import JavaScript
from clients.python import Python
from model import ED25519PH, P384, RSA, Case, Key, Kind, NotPossible, Sample, SigningFailed
from oci import Registry
from process import run
from tokens import ALICE, Issuer, create

DOCUMENTS = ("trusted_root.json", "signing_config.v0.2.json", "client_trust_config.json")
PREDICATE = {
    "buildDefinition": {
        "buildType": "https://ci.interop.test/build/v1",
        "externalParameters": {"repository": "https://git.interop.test/shop/app", "ref": "refs/heads/main"},
    },
    "runDetails": {"builder": {"id": "https://ci.interop.test/runner"}},
}
KEYS = {"RSA": RSA, "P-384": P384, "Ed25519": ED25519PH}
AT_ONCE = (os.cpu_count() or 2) + 2
"""Calls of clients at the same time."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="matrix")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("issuer").add_argument("directory", type=Path)
    run_ = commands.add_parser("run")
    for name in ("work", "ca", "binary", "node", "js", "out"):
        run_.add_argument(f"--{name}", type=Path, required=True)
    for name in ("cosign", "sigstore-go"):
        run_.add_argument(f"--{name}", type=Path)
    run_.add_argument("--url", required=True)
    run_.add_argument("--registry", action="append", default=[], metavar="NAME=HOST")
    return parser.parse_args()


def prepare(given: argparse.Namespace) -> Place:
    """Everything but what the service hands out."""
    documents = given.work / "documents"
    for directory in (documents, given.work / "home"):
        directory.mkdir()
    predicate = given.work / "predicate.json"
    predicate.write_text(json.dumps(PREDICATE))
    registries = [Registry(*pair.rsplit("=", 1)) for pair in given.registry]
    return Place(
        work=given.work,
        url=given.url,
        authority=given.ca,
        trusted_root=documents / DOCUMENTS[0],
        signing_config=documents / DOCUMENTS[1],
        client_trust_config=documents / DOCUMENTS[2],
        predicate=predicate,
        issuer=Issuer(given.work / "issuer"),
        registries={registry.host: registry for registry in registries},
    )


def fetch_documents(place: Place) -> None:
    """What the service hands out; nothing else is given to a client."""
    for path in (place.trusted_root, place.signing_config, place.client_trust_config):
        answer = requests.get(f"{place.url}/{path.name}", verify=str(place.authority), timeout=20)
        answer.raise_for_status()
        path.write_bytes(answer.content)


def all_cases(place: Place) -> list[Case]:
    of_files = [Case(Kind.FILE), Case(Kind.STATEMENT)]
    return of_files + [
        Case(kind, registry.name, registry.host)
        for registry in place.registries.values()
        for kind in (Kind.IMAGE, Kind.ATTESTATION)
    ]


def other_key(place: Place) -> Key:
    """A key that has signed nothing."""
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    path = place.work / "other.pub"
    path.write_bytes(public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return Key(path)


def sign_all(place: Place, signers: list[Client], cases: list[Case]) -> dict[tuple[Case, str], Sample | Exception]:
    def sign(job: tuple[int, Client, Case]) -> Sample | Exception:
        number, signer, case = job
        try:
            return samples.make(place, signer, case, number)
        except (NotPossible, SigningFailed) as why:
            return why

    jobs = [(row + column, signer, case) for row, case in enumerate(cases) for column, signer in enumerate(signers)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return {(case, signer.name): made for (_, signer, case), made in zip(jobs, pool.map(sign, jobs), strict=True)}


def verify_all(place: Place, signed: dict[tuple[Case, str], Sample | Exception], verifiers: list[Client]) -> list[Cell]:
    stranger = other_key(place)

    def verify(job: tuple[int, Case, str, Sample | Exception, Client]) -> Cell:
        number, case, signer, sample, verifier = job
        if isinstance(sample, NotPossible):
            return Cell(case, signer, verifier.name, impossible=f"{signer} {sample}")
        if isinstance(sample, Exception):
            return Cell(case, signer, verifier.name, unsigned=f"{signer} has not signed: {sample}")
        return judge(verifier, sample, stranger, number)

    pairs = [(case, signer, sample, verifier) for (case, signer), sample in signed.items() for verifier in verifiers]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(verify, [(number, *pair) for number, pair in enumerate(pairs)]))


def time_entries(place: Place, golang: Golang | None) -> dict[str, float | None]:
    """Median milliseconds for an entry, by client."""
    programs: dict[str, list[object]] = {
        "sigstore-python": [
            sys.executable,
            Path(__file__).parent / "timing.py",
            place.client_trust_config,
            timing.COUNT,
        ]
    }
    if golang is not None:
        programs["sigstore-go"] = [
            *golang.command,
            "time",
            "--signing-config",
            place.signing_config,
            "--entries",
            timing.COUNT,
        ]
    medians = {}
    for name, program in programs.items():
        ran = run(program, place.environment(), given=place.issuer.token(ALICE))
        medians[name] = timing.median(ran.stdout) if ran.code == 0 else None
        shown = f"{medians[name]:.1f} ms" if ran.code == 0 else f"FAILED: {ran.said}"
        print(f"  {name:<18}{shown} (p50 of {timing.COUNT} entries, request to parsed answer)")
    return medians


def versions(given: argparse.Namespace) -> dict[str, str]:
    package = given.js.parent / "node_modules" / "@sigstore"
    found = {
        "countersign": run([given.binary, "--version"], {}).stdout.split()[-1],
        "sigstore-python": importlib.metadata.version("sigstore"),
        "@sigstore/sign": json.loads((package / "sign" / "package.json").read_text())["version"],
        "@sigstore/verify": json.loads((package / "verify" / "package.json").read_text())["version"],
    }
    if given.cosign:
        said = run([given.cosign, "version"], {"HOME": str(given.work)}).stdout
        found["cosign"] = (re.search(r"GitVersion:\s+(\S+)", said) or ["", "unknown"])[1]
    if given.sigstore_go:
        module = (Path(__file__).parent.parent / "sigstore-go" / "go.mod").read_text()
        found["sigstore-go"] = re.search(r"sigstore-go (v\S+)", module)[1]
    return found


def show(steps: Iterator[Step]) -> list[Step]:
    """Prints the steps as they happen."""
    done = []
    for step in steps:
        said = "" if step.holds else f": {step.said}"
        print(f"  {'ok    ' if step.holds else 'FAILED'}  {step.client}: {step.what}{said}", flush=True)
        done.append(step)
    return done


def run_matrix(given: argparse.Namespace) -> int:
    begun = time.monotonic()
    place = prepare(given)
    fetch_documents(place)
    countersign, python = Countersign(place, given.binary), Python(place)
    javascript = JavaScript(place, given.node, given.js)
    cosign = Cosign(place, given.cosign) if given.cosign else None
    golang = Golang(place, given.sigstore_go) if given.sigstore_go else None
    verifiers = [client for client in (countersign, python, javascript, cosign, golang) if client is not None]
    signers = [*verifiers, CountersignKey(place, given.binary)]
    signers += [CosignKey(place, given.cosign)] if given.cosign else []
    if given.sigstore_go:
        signers += [GolangKey(place, given.sigstore_go, name, algorithm) for name, algorithm in KEYS.items()]
    known = versions(given)
    print("  " + ", ".join(f"{name} {version}" for name, version in known.items()), flush=True)

    signed = sign_all(place, signers, all_cases(place))
    cells = verify_all(place, signed, verifiers)
    print(report.tables(cells, [verifier.name for verifier in verifiers]))
    questions = sum(len(check.verdicts) for cell in cells for check in cell.checks)
    print(f"\n  {len(cells)} cells, {questions} answers of verifiers, {time.monotonic() - begun:.0f} seconds")

    print("\nEntries into the log", flush=True)
    medians = time_entries(place, golang)

    print("\nBy way of TUF", flush=True)
    first, clients, steps = first_root(place), None, []
    if first is None:
        print("  skipped: the service serves no TUF repository at /tuf/")
    else:
        clients = TufClients(place, first, python, javascript, cosign)
        steps = show(clients.begin())

    print("\nRotation of keys", flush=True)
    old = [signed[Case(Kind.FILE), signer.name] for signer in signers]
    old = [sample for sample in old if isinstance(sample, Sample)]
    if rotation.can_rotate(countersign):
        fetch = partial(fetch_documents, place)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            rotations = rotation.Rotation(place, countersign, signers, verifiers, old, clients, fetch, pool)
            for name, done in rotations.all():
                failed = [step for step in done if not step.holds]
                print(f"  {'FAILED' if failed else 'ok    '}  {name}: {len(done)} steps", flush=True)
                show(iter(failed))
                steps += done
    else:
        print("  skipped: this version has no `trust rotate`")

    python.commands.end()
    written = [dataclasses.asdict(step) for step in steps]
    report.write(given.out, cells, versions=known, entryMilliseconds=medians, steps=written)
    red = [cell for cell in cells if cell.is_red]
    failed = [step for step in steps if not step.holds]
    if red or failed or None in medians.values():
        print(f"\n  NOT green: {len(red)} cells, {len(failed)} steps")
        return 1
    print(f"\n  green, {time.monotonic() - begun:.0f} seconds")
    return 0


def main() -> int:
    given = arguments()
    if given.command == "issuer":
        create(given.directory)
        return 0
    try:
        return run_matrix(given)
    except (OSError, requests.RequestException) as trouble:
        print(f"error: {trouble}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
