"""One of the processes that run trials: portions come in on standard input, verdicts go out on standard output."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from chaos import site
from chaos.catalogue import BY_NAME
from chaos.database import Databases
from chaos.leaks import adopt_orphans
from chaos.plan import Portion
from chaos.trial import as_document, run_trials

END = "end"
"""The line behind the last verdict of a portion."""


def main() -> int:
    """Arguments: the job's number, the seed, and the folder for evidence."""
    number, seed, evidence = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    verdicts = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever prints by mistake
    adopt_orphans()
    site.use_ports_of(number)
    signal.signal(
        signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM)
    )  # servers and databases end too
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run itself hears it, and says what ends
    databases = Databases()
    try:
        for line in sys.stdin:
            portion = Portion(**json.loads(line))
            fault = BY_NAME[portion.fault]
            for verdict in run_trials(fault, portion.store, portion.first, portion.count, seed, databases, evidence):
                verdicts.write(json.dumps(as_document(verdict)) + "\n")
            verdicts.write(json.dumps(END) + "\n")
    finally:
        databases.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
