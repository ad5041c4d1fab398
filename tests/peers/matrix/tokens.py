"""An OIDC issuer without a server: a key, its JWKS file, and tokens that are minted here."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from model import Identity

AUDIENCE = "sigstore"
LIFETIME = 600
"""Seconds that a token is valid."""
KEY_ID = "interop"

PEOPLE = "https://accounts.interop.test"
"""Issues tokens for e-mail addresses."""
MACHINES = "https://ci.interop.test"
"""Issues tokens for URIs."""

ALICE = Identity("alice@interop.test", PEOPLE)
PIPELINE = Identity("https://ci.interop.test/shop/app/release.yml@refs/heads/main", MACHINES)
OPERATOR = Identity("https://ci.interop.test/operator", MACHINES)
"""May rotate keys."""


def create(directory: Path) -> None:
    """Makes the key, and `jwks.json` beside it for the service."""
    directory.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private = directory / "issuer.key"
    private.touch(mode=0o600)
    private.write_bytes(pem)
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    public.update(kid=KEY_ID, use="sig", alg="ES256")
    (directory / "jwks.json").write_text(json.dumps({"keys": [public]}))


class Issuer:
    """Mints tokens with the key in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = (directory / "issuer.key").read_bytes()

    def token(self, identity: Identity) -> str:
        now = int(time.time())
        claims = {
            "iss": identity.issuer,
            "aud": AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME,
            "jti": secrets.token_hex(16),
        }
        if "@" in identity.subject and "/" not in identity.subject:
            claims |= {"sub": "1001", "email": identity.subject, "email_verified": True}
        else:
            claims["sub"] = identity.subject
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": KEY_ID})

    def token_file(self, identity: Identity) -> Path:
        path = self.directory / f"token-{secrets.token_hex(8)}"
        path.touch(mode=0o600)
        path.write_text(self.token(identity))
        return path
