"""In-toto statements for clients that are given a whole one."""

from __future__ import annotations

import json
from pathlib import Path

from model import IMAGE_SIGNATURE, Sample


def statement(sample: Sample, predicate: Path) -> Path:
    """Writes the statement that the sample is to carry."""
    wanted = sample.kind.predicate_type
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": sample.image.split("@")[0] or sample.artifact.name,
                "digest": {"sha256": sample.digest.removeprefix("sha256:")},
            }
        ],
        "predicateType": wanted,
        "predicate": {} if wanted == IMAGE_SIGNATURE else json.loads(predicate.read_text()),
    }
    path = sample.bundle.with_suffix(".statement.json")
    path.write_text(json.dumps(document))
    return path
