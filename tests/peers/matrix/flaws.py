"""One byte of a bundle changed, where every verifier must notice."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

MATERIAL = "verificationMaterial"

Place = tuple[str, Callable[[dict], tuple[dict | list, str | int]]]


def _signature(bundle: dict) -> tuple[dict | list, str | int]:
    if "messageSignature" in bundle:
        return bundle["messageSignature"], "signature"
    return bundle["dsseEnvelope"]["signatures"][0], "sig"


def _payload(bundle: dict) -> tuple[dict | list, str | int]:
    return bundle["dsseEnvelope"], "payload"


def _certificate(bundle: dict) -> tuple[dict | list, str | int]:
    material = bundle[MATERIAL]
    if "certificate" in material:
        return material["certificate"], "rawBytes"
    return material["x509CertificateChain"]["certificates"][0], "rawBytes"


def _stamp(bundle: dict) -> tuple[dict | list, str | int]:
    return bundle[MATERIAL]["timestampVerificationData"]["rfc3161Timestamps"][0], "signedTimestamp"


def _checkpoint(bundle: dict) -> tuple[dict | list, str | int]:
    return bundle[MATERIAL]["tlogEntries"][0]["inclusionProof"]["checkpoint"], "envelope"


PLACES: list[Place] = [
    ("signature", _signature),
    ("checkpoint", _checkpoint),
    ("certificate", _certificate),
    ("timestamp", _stamp),
    ("payload", _payload),
]


def change(bundle: bytes, number: int) -> tuple[str, bytes]:
    """Changes one byte in the `number`th of the places that this bundle has; the place, and the changed bundle.

    A timestamp is left alone where a key has signed: some verifiers need none there.
    """
    document = json.loads(bundle)
    by_key = "publicKey" in document[MATERIAL]
    places = [
        (name, find)
        for name, find in PLACES
        if not (name == "payload" and "dsseEnvelope" not in document)
        and not (name in ("certificate", "timestamp") and by_key)
    ]
    name, find = places[number % len(places)]
    holder, key = find(document)
    holder[key] = _root_changed(holder[key]) if name == "checkpoint" else _bytes_changed(name, holder[key])
    return name, json.dumps(document).encode()


def _bytes_changed(name: str, text: str) -> str:
    content = bytearray(base64.b64decode(text))
    # The end of a token is its signature; elsewhere in it may be certificates that nobody needs.
    at = len(content) - 1 if name == "timestamp" else len(content) // 2
    content[at] ^= 1
    return base64.b64encode(content).decode()


def _root_changed(note: str) -> str:
    """The third line of a checkpoint is its root."""
    lines = note.split("\n")
    lines[2] = _bytes_changed("checkpoint", lines[2])
    return "\n".join(lines)
