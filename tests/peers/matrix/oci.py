"""As much of a registry client as is needed: push small images, attach bundles as cosign 3 does, find them again."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from urllib.parse import urljoin

import requests

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
TIME_LIMIT = 20


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Image:
    """An image before it is pushed."""

    manifest: bytes
    blobs: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)


def image(label: str) -> Image:
    """A small one that differs by its label."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        content = f"{label}\n".encode()
        entry = tarfile.TarInfo("label")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    layer = gzip.compress(packed.getvalue(), mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"label": label}},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(packed.getvalue())]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config),
        "layers": [descriptor(LAYER, layer)],
    }
    return Image(json.dumps(manifest).encode(), (config, layer))


def descriptor(media_type: str, content: bytes, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **more}


class Registry:
    """A registry over plain HTTP. `name` is how it is printed."""

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.http = requests.Session()
        self.http.trust_env = False

    def push(self, repository: str, tag: str, pushed: Image) -> str:
        """Pushes the image; its reference by digest."""
        for blob in pushed.blobs:
            self._push_blob(repository, blob)
        self._put(repository, tag, MANIFEST, pushed.manifest)
        return f"{self.host}/{repository}:{tag}@{pushed.digest}"

    def attach(self, repository: str, subject: bytes, bundle: bytes, predicate_type: str) -> None:
        """Attaches a bundle to the image with the manifest `subject`."""
        for blob in (b"{}", bundle):
            self._push_blob(repository, blob)
        annotations = {
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": predicate_type,
        }
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": BUNDLE,
                "config": descriptor(EMPTY, b"{}"),
                "layers": [descriptor(BUNDLE, bundle)],
                "annotations": annotations,
                "subject": descriptor(MANIFEST, subject),
            }
        ).encode()
        answer = self._put(repository, digest_of(manifest), MANIFEST, manifest)
        if "OCI-Subject" in answer.headers:
            return
        tag = digest_of(subject).replace(":", "-")
        listed = self._get(repository, f"manifests/{tag}", INDEX)
        entries = listed.json()["manifests"] if listed is not None else []
        entries.append(descriptor(MANIFEST, manifest, artifactType=BUNDLE, annotations=annotations))
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        self._put(repository, tag, INDEX, json.dumps(index).encode())

    def bundles(self, repository: str, subject: str) -> list[bytes]:
        """The bundles that refer to a digest."""
        listed = self._get(repository, f"referrers/{subject}", INDEX)
        if listed is None or not listed.json().get("manifests"):
            listed = self._get(repository, f"manifests/{subject.replace(':', '-')}", INDEX)
        found = []
        for entry in (listed.json()["manifests"] or []) if listed is not None else []:
            manifest = self._get(repository, f"manifests/{entry['digest']}", MANIFEST)
            layer = manifest.json()["layers"][0] if manifest is not None else {"mediaType": ""}
            if layer["mediaType"].startswith("application/vnd.dev.sigstore.bundle"):
                found.append(self._get(repository, f"blobs/{layer['digest']}", "*/*").content)
        return found

    def _url(self, repository: str, path: str) -> str:
        return f"http://{self.host}/v2/{repository}/{path}"

    def _get(self, repository: str, path: str, accept: str) -> requests.Response | None:
        answer = self.http.get(self._url(repository, path), headers={"Accept": accept}, timeout=TIME_LIMIT)
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        return answer

    def _put(self, repository: str, reference: str, media_type: str, content: bytes) -> requests.Response:
        url = self._url(repository, f"manifests/{reference}")
        answer = self.http.put(url, data=content, headers={"Content-Type": media_type}, timeout=TIME_LIMIT)
        answer.raise_for_status()
        return answer

    def _push_blob(self, repository: str, content: bytes) -> None:
        url = self._url(repository, f"blobs/{digest_of(content)}")
        if self.http.head(url, timeout=TIME_LIMIT).status_code == 200:
            return
        begun = self.http.post(self._url(repository, "blobs/uploads/"), timeout=TIME_LIMIT)
        begun.raise_for_status()
        to = urljoin(begun.url, begun.headers["Location"])
        to += ("&" if "?" in to else "?") + f"digest={digest_of(content)}"
        headers = {"Content-Type": "application/octet-stream"}
        self.http.put(to, data=content, headers=headers, timeout=TIME_LIMIT).raise_for_status()
