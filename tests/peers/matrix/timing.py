"""How long a client waits for its entry in the log: `POST /api/v2/log/entries`, until the answer is parsed.

Runs as a process of its own, so that nothing else of the matrix is in the way:

    python timing.py CLIENT_TRUST_CONFIG COUNT < TOKEN

prints the milliseconds of each of `sigstore-python`'s entries, one a line.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

COUNT = 20


def median(lines: str) -> float | None:
    values = [float(line) for line in lines.split()]
    return statistics.median(values) if values else None


def main() -> None:
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken
    from sigstore.sign import SigningContext

    path, count = sys.argv[1:]
    context = SigningContext.from_trust_config(ClientTrustConfig.from_json(Path(path).read_text()))
    create_entry = context._rekor.create_entry

    def timed(payload: object) -> object:
        begun = time.perf_counter()
        entry = create_entry(payload)
        print(f"{(time.perf_counter() - begun) * 1000:.3f}")
        return entry

    context._rekor.create_entry = timed
    with context.signer(IdentityToken(sys.stdin.read().strip())) as signer:
        for number in range(int(count)):
            signer.sign_artifact(f"entry {number}".encode())


if __name__ == "__main__":
    main()
