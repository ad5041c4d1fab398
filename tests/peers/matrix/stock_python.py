"""The `sigstore` command without the second that it takes to load: loaded once, and forked for each call.

Reads one JSON object a line, `{"arguments": […], "environment": {…}, "stdout": PATH, "stderr": PATH}`, runs
`sigstore ARGUMENTS` in a child of its own, and answers with its exit code in one line. What runs is the command's own
`main`, in a process that had not called anything before.

`["statement", CLIENT_TRUST_CONFIG, STATEMENT, BUNDLE]` signs a statement of any type, which the library does and the
command does not; the token is in `SIGSTORE_IDENTITY_TOKEN`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from sigstore import _cli
from sigstore.dsse import Statement
from sigstore.models import ClientTrustConfig
from sigstore.oidc import IdentityToken
from sigstore.sign import SigningContext


def sign_statement(trust_config: str, statement: str, bundle: str) -> None:
    context = SigningContext.from_trust_config(ClientTrustConfig.from_json(Path(trust_config).read_text()))
    with context.signer(IdentityToken(os.environ["SIGSTORE_IDENTITY_TOKEN"])) as signer:
        signed = signer.sign_dsse(Statement(Path(statement).read_bytes()))
    Path(bundle).write_text(signed.to_json())


def call(request: dict) -> None:
    """In the child: never returns to the loop."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.environ.clear()
    os.environ.update(request["environment"])
    code = 0
    try:
        if request["arguments"][0] == "statement":
            sign_statement(*request["arguments"][1:])
        else:
            _cli.main(request["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            call(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
