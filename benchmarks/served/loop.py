"""The same models in a plain loop, with no server at all: `loop.py MODEL FOLDER BATCH_SIZE BODY SECONDS` prints items a second."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import predict


def main() -> None:
    """Read the body and decode it for each item, as a worker has to; bodies that are not JSON are used as they are."""
    model, folder, batch, body, seconds = sys.argv[1:6]
    call = predict.MODELS[model](Path(folder))
    data = Path(body).read_bytes()
    size = int(batch)
    decode = json.loads if model == "mlp" else bytes

    def rounds(until: float) -> int:
        count = 0
        while time.perf_counter() < until:
            call([decode(data) for _ in range(size)])
            count += size
        return count

    rounds(time.perf_counter() + 0.5)
    print("warm", flush=True)
    sys.stdin.readline()  # several loops begin together
    began = time.perf_counter()
    cpu = time.process_time()
    count = rounds(began + float(seconds))
    elapsed = time.perf_counter() - began
    print(json.dumps({"rate": count / elapsed, "cpu": (time.process_time() - cpu) / count * 1000}))


if __name__ == "__main__":
    main()
