"""PyPI `sigstore`: its command, and its library for the one statement that the command does not sign."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from clients import Client, Place, options, verdict
from model import Identity, Key, Kind, NotPossible, Sample, SigningFailed, Verdict
from process import TIME_LIMIT, Ran, environment
from statements import statement

WORKERS = 3


class Python(Client):
    name = "sigstore-python"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.commands = Commands(place.work / "stock-python", place.authority)

    def sign(self, sample: Sample) -> None:
        if not isinstance(sample.credential, Identity):
            raise NotPossible("signs with certificates alone")
        token = {"SIGSTORE_IDENTITY_TOKEN": self.place.issuer.token(sample.credential)}
        trust = ["--trust-config", self.place.client_trust_config]
        if sample.kind is Kind.IMAGE:
            words = [
                "statement",
                self.place.client_trust_config,
                statement(sample, self.place.predicate),
                sample.bundle,
            ]
        elif sample.kind is Kind.FILE:
            words = [*trust, "sign", "--bundle", sample.bundle, sample.artifact]
        else:
            predicate = {"--predicate": self.place.predicate, "--predicate-type": sample.kind.predicate_type}
            words = [*trust, "attest", *options(predicate), "--bundle", sample.bundle, sample.artifact]
        ran = self.commands.run(words, **token)
        if ran.code != 0:
            raise SigningFailed(ran.said)

    def verify(self, sample: Sample, credential: object) -> list[Verdict]:
        if isinstance(credential, Key):
            raise NotPossible("verifies certificates alone")
        given = {
            "--bundle": sample.bundle,
            "--cert-identity": credential.subject,
            "--cert-oidc-issuer": credential.issuer,
        }
        subject = sample.digest if sample.kind.is_image else sample.artifact
        trust = ["--trust-config", self.place.client_trust_config]
        ran = self.commands.run([*trust, "verify", "identity", "--offline", *options(given), subject])
        return [verdict(ran)]


class Commands:
    """A few processes that have the command loaded."""

    def __init__(self, directory: Path, authority: Path) -> None:
        self.directory = directory
        self.authority = authority
        directory.mkdir()
        self.idle: queue.Queue[subprocess.Popen[str]] = queue.Queue()
        self.started: list[subprocess.Popen[str]] = []
        for _ in range(WORKERS):
            worker = subprocess.Popen(
                [sys.executable, Path(__file__).parent.parent / "stock_python.py"],
                env=environment(directory, authority),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self.started.append(worker)
            self.idle.put(worker)

    def run(self, words: list[object], home: Path | None = None, **more: str) -> Ran:
        with self._worker() as worker:
            output = {name: str(self.directory / f"{worker.pid}.{name}") for name in ("stdout", "stderr")}
            request = {
                "arguments": [str(word) for word in words],
                "environment": environment(home or self.directory, self.authority, **more),
                **output,
            }
            late = threading.Timer(TIME_LIMIT, worker.kill)
            late.start()
            try:
                print(json.dumps(request), file=worker.stdin, flush=True)
                answer = worker.stdout.readline().strip()
            finally:
                late.cancel()
            said = [Path(output[name]).read_text(errors="replace") for name in ("stdout", "stderr")]
            return Ran(int(answer) if answer else None, *said)

    @contextlib.contextmanager
    def _worker(self) -> Iterator[subprocess.Popen[str]]:
        worker = self.idle.get()
        try:
            yield worker
        finally:
            self.idle.put(worker)

    def end(self) -> None:
        for worker in self.started:
            worker.stdin.close()
            worker.wait(timeout=TIME_LIMIT)
