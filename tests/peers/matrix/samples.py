"""Something signed by each client for each case, and beside it the same with one thing wrong."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import flaws
import oci
from clients import Client, Place
from model import Case, Identity, Key, Kind, Sample, SigningFailed
from tokens import ALICE, PIPELINE

ANOTHER_ARTIFACT = "one byte of the file"
ANOTHER_IMAGE = "the bundle at another image"
CHANGED = "one byte of the bundle"

# Both forms of identity, for every client.
IDENTITIES = {Kind.FILE: ALICE, Kind.STATEMENT: PIPELINE, Kind.IMAGE: PIPELINE, Kind.ATTESTATION: ALICE}


def credential_of(client: Client, kind: Kind) -> Identity | Key:
    return getattr(client, "key", None) or IDENTITIES[kind]


def make(place: Place, client: Client, case: Case, number: int, occasion: str = "") -> Sample:
    """Has the client sign. Raises `NotPossible` and `SigningFailed`.

    `number` says which byte of the bundle is changed in the copy that must be refused.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", f"{client.name} {case.slug} {occasion}".strip().lower())
    directory = place.work / "samples" / slug
    directory.mkdir(parents=True)
    make_one = _image if case.kind.is_image else _file
    return make_one(place, client, case, directory, number)


def _file(_: Place, client: Client, case: Case, directory: Path, number: int) -> Sample:
    artifact, other = directory / "tool", directory / "other" / "tool"
    content = f"a tool that is signed as {directory.name}\n".encode()
    other.parent.mkdir()
    artifact.write_bytes(content)
    other.write_bytes(content.replace(b"tool", b"tooL"))
    bundle = directory / "bundle.json"
    credential = credential_of(client, case.kind)
    sample = Sample(case, client.name, credential, artifact, oci.digest_of(content), bundle)
    client.sign(sample)
    place_changed, changed = flaws.change(_written(sample), number)
    changed_bundle = directory / "changed.json"
    changed_bundle.write_bytes(changed)
    sample.flaws = {
        ANOTHER_ARTIFACT: replace(sample, artifact=other, digest=oci.digest_of(other.read_bytes())),
        f"{CHANGED} ({place_changed})": replace(sample, bundle=changed_bundle, changed=place_changed),
    }
    return sample


def _written(sample: Sample) -> bytes:
    if not sample.bundle.is_file():
        raise SigningFailed("it says that it has signed, and there is no bundle")
    return sample.bundle.read_bytes()


def _image(place: Place, client: Client, case: Case, directory: Path, number: int) -> Sample:
    registry = place.registries[case.host]
    repository = f"interop/{directory.name}"
    image, other = oci.image(directory.name), oci.image(f"{directory.name}, another")
    manifests = {}
    for name, one in (("manifest.json", image), ("other.json", other)):
        manifests[one] = directory / name
        manifests[one].write_bytes(one.manifest)
    sample = Sample(
        case,
        client.name,
        credential_of(client, case.kind),
        manifests[image],
        image.digest,
        directory / "bundle.json",
        image=registry.push(repository, "v1", image),
    )
    client.sign(sample)
    bundle = _attached(registry, repository, image, sample)

    def elsewhere(name: str, pushed: oci.Image, attached: bytes) -> str:
        reference = registry.push(f"{repository}-{name}", "v1", pushed)
        registry.attach(f"{repository}-{name}", pushed.manifest, attached, case.kind.predicate_type)
        return reference

    place_changed, changed = flaws.change(bundle, number)
    changed_bundle = directory / "changed.json"
    changed_bundle.write_bytes(changed)
    sample.flaws = {
        ANOTHER_IMAGE: replace(
            sample, artifact=manifests[other], digest=other.digest, image=elsewhere("other", other, bundle)
        ),
        f"{CHANGED} ({place_changed})": replace(
            sample, bundle=changed_bundle, changed=place_changed, image=elsewhere("changed", image, changed)
        ),
    }
    return sample


def _attached(registry: oci.Registry, repository: str, image: oci.Image, sample: Sample) -> bytes:
    """The one bundle of the image in its registry; attached here if the client knows nothing of registries."""
    found = registry.bundles(repository, image.digest)
    if not found:
        registry.attach(repository, image.manifest, _written(sample), sample.kind.predicate_type)
        found = registry.bundles(repository, image.digest)
    if len(found) != 1:
        raise SigningFailed(f"the image has {len(found)} bundles in its registry, and one was to be there")
    if sample.bundle.is_file() and sample.bundle.read_bytes() != found[0]:
        raise SigningFailed("the bundle in the registry is another one than the client has written")
    sample.bundle.write_bytes(found[0])
    return found[0]
