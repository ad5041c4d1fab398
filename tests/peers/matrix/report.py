"""The matrix for people, and for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from cells import Cell


def tables(cells: Iterable[Cell], verifiers: list[str]) -> str:
    """One table for each case: signers down, verifiers across, and notes below."""
    by_case: dict[str, dict[str, dict[str, Cell]]] = {}
    for cell in cells:
        by_case.setdefault(cell.case.title, {}).setdefault(cell.signer, {})[cell.verifier] = cell
    lines: list[str] = []
    notes: dict[str, int] = {}
    width = max(map(len, verifiers)) + 2
    for title, rows in by_case.items():
        lines += ["", title, " " * 20 + "".join(name.ljust(width) for name in verifiers)]
        for signer, row in rows.items():
            shown = []
            for name in verifiers:
                cell = row.get(name)
                text = "" if cell is None else cell.state
                if cell is not None and cell.state != "ok":
                    number = notes.setdefault(cell.note, len(notes) + 1)
                    text = {"not possible": "-", "upstream": "refused"}.get(text, text) + f" [{number}]"
                shown.append(text.ljust(width))
            lines.append(f"  {signer:<18}" + "".join(shown).rstrip())
    if notes:
        lines.append("")
    lines += [f"  [{number}] {note}" for note, number in notes.items()]
    return "\n".join(lines)


def write(path: Path, cells: Iterable[Cell], **more: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": [_document(cell) for cell in cells], **more}, indent=1) + "\n")


def _document(cell: Cell) -> dict[str, object]:
    checks = [
        {
            "what": check.what,
            "wanted": check.wanted.value,
            "verdicts": [
                {"way": verdict.way, "outcome": verdict.outcome.value, "said": verdict.said}
                for verdict in check.verdicts
            ],
        }
        for check in cell.checks
    ]
    return {
        "case": cell.case.title,
        "signer": cell.signer,
        "verifier": cell.verifier,
        "state": cell.state,
        "note": cell.note,
        "checks": checks,
    }
