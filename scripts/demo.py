"""The demonstration: a real model served, the server killed, everything back; `scripts/demo` runs it."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _server import ROOT, STOPPED_WITHIN, DemoServer, Traces, free_port, is_free

sys.path.insert(0, str(ROOT / "examples" / "magika"))

import build  # the recipe in examples/magika

SAMPLE = Path("examples/magika/handler.py")
REGISTRATION = "/models?url=magika.mar&batch_size=8&max_batch_delay=5&initial_workers=2&synchronous=true"
GONE_WITHIN = 5.0  # seconds after a SIGKILL


class StoryBroken(Exception):
    """A step did not come out as promised."""


def make_archive(store: Path) -> Path:
    """`magika.mar` in that folder, packed anew where one of its sources is newer."""
    archive = store / "magika.mar"
    newest = max(source.stat().st_mtime for source in build.sources().values())
    if not archive.exists() or archive.stat().st_mtime < newest:
        store.mkdir(parents=True, exist_ok=True)
        build.build(store)
    return archive


def in_words(name: str, answer: dict[str, Any]) -> str:
    """A prediction as one would say it."""
    return f"{name} is: {answer['description']} ({answer['mime_type']}), {answer['score']:.1%} sure"


# --- by hand ----------------------------------------------------------------------------------------------------------

NEXT = """
Try it from another terminal:

  predict    curl -T README.md {server.inference}/predictions/magika
  describe   curl {server.management}/models/magika
  kill       kill -KILL {server.pid}
  restart    {restart}
  and ask    curl {server.management}/recovery        (what it decided at this start, and why)

After the kill and the restart, predict again: magika is back without being registered again.
Ctrl-C here is a clean stop; the next start then begins without magika, unless it is given --recover.
"""


def say(text: str) -> None:
    """A line of the demonstration's own, told apart from the server's log."""
    print(f"\n== {text}", flush=True)


def show(folder: Path) -> int:
    """Start the server in the foreground, register, predict, print the next commands; returns at Ctrl-C."""
    say(f"Packing Google's file type model (from the Python package magika) into {shown(folder)}/models/magika.mar")
    make_archive(folder / "models")
    ports = (8080, 8081) if is_free(8080) and is_free(8081) else (free_port(), free_port())
    server = DemoServer(folder, *ports)
    command = f".venv/bin/mms serve --config {shown(server.config)}"
    say(f"Starting the server; its state is kept in {shown(folder)}/mms-data (SQLite)")
    print(f"   {command}", flush=True)
    try:
        server.start()
        introduce(server)
        print(NEXT.format(server=server, restart=command), flush=True)
        code = server.wait()
    except KeyboardInterrupt:
        code = server.wait(STOPPED_WITHIN)  # Ctrl-C reached the server too: another signal would cut its drain short
    except StoryBroken as broken:
        print(f"FAILED: {broken}", file=sys.stderr)
        return 1
    finally:
        server.stop_or_kill()
    if code < 0:
        say(f"The server was killed (signal {-code}). Start it again with: {command}")
    return 0 if code == 0 else 1


def introduce(server: DemoServer) -> None:
    """Register the model, unless it came back by itself, and ask it about a file."""
    if server.manage("GET", "/models/magika")[0] == 200:
        say("magika is there already: registered in an earlier life of this server, and replayed")
    else:
        say(f"Registering the model through the management API: POST {REGISTRATION}")
        status, answer = server.manage("POST", REGISTRATION)
        promised(status == 200, f"the registration answered {status} {answer}")
        print(f"   {status}: {answer['status']}", flush=True)
    status, answer = server.predict("magika", (ROOT / SAMPLE).read_bytes())
    promised(status == 200, f"the prediction answered {status} {answer}")
    say(in_words(str(SAMPLE), answer))


def shown(path: Path) -> str:
    """A path as it is typed from the project's folder."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


# --- unattended -------------------------------------------------------------------------------------------------------


class Story:
    """The unattended story, step by step; each step prints one line, and the first broken promise ends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.archive = make_archive(folder / "models")
        self.server = DemoServer(folder, free_port(), free_port(), log=folder / "server.log")
        self.steps = 0

    def run(self) -> None:
        """Everything that the demonstration promises, in order."""
        for step in (
            self.starts_empty,
            self.registers,
            self.predicts,
            self.dies_without_a_trace,
            self.replays_by_itself,
            self.predicts,
            self.stops_cleanly,
            self.starts_from_the_manifest,
            self.stops_cleanly,
            self.recovers_when_asked,
            self.predicts,
            self.stops_cleanly,
            self.starts_clean_when_asked,
            self.stops_cleanly,
        ):
            self._told(step)

    def _told(self, step: Callable[[], str]) -> None:
        began = time.monotonic()
        told = step()
        self.steps += 1
        print(f"ok {self.steps:2}  {told}  [{time.monotonic() - began:.1f} s]", flush=True)

    def starts_empty(self) -> str:
        """First start."""
        return f"first start: {self._start_and_expect('MANIFEST', magika=False)}"

    def registers(self) -> str:
        """Register through the management API."""
        status, answer = self.server.manage("POST", REGISTRATION)
        promised(status == 200, f"the registration answered {status} {answer}")
        model = self._describe()
        shown = {key: model[key] for key in ("batchSize", "maxBatchDelay", "minWorkers")}
        promised(shown == {"batchSize": 8, "maxBatchDelay": 5, "minWorkers": 2}, f"the model is described as {shown}")
        return "registered magika through the management API: batch_size 8, max_batch_delay 5 ms, 2 workers"

    def predicts(self) -> str:
        """Ask about files whose kind is known."""
        files = {ROOT / SAMPLE: "python", ROOT / "LICENSE": "txt", self.archive: "zip"}
        for path, label in files.items():
            status, answer = self.server.predict("magika", path.read_bytes())
            promised(status == 200, f"the prediction for {path.name} answered {status} {answer}")
            promised(answer["label"] == label, f"{path.name} should be {label}, and was {answer}")
        promised(len(self._describe()["workers"]) == 2, "two workers should serve magika")
        _, answer = self.server.predict("magika", (ROOT / SAMPLE).read_bytes())
        return f"predicted: {in_words(SAMPLE.name, answer)}"

    def dies_without_a_trace(self) -> str:
        """SIGKILL, and a look at what is left."""
        traces = Traces.of(self.server)
        promised(len(traces.processes) >= 3, f"server and two workers should run, and these do: {traces.processes}")
        self.server.kill()
        left = traces.left_after(GONE_WITHIN)
        promised(not left, f"left behind {GONE_WITHIN:.0f} s after the SIGKILL: {'; '.join(left)}")
        return f"killed the server with SIGKILL; nothing is left of {traces}"

    def replays_by_itself(self) -> str:
        """Start with no flag after the crash."""
        return f"started with no flag: {self._start_and_expect('REPLAY', magika=True)}"

    def starts_from_the_manifest(self) -> str:
        """Start with no flag after a clean stop."""
        return f"started with no flag: {self._start_and_expect('MANIFEST', magika=False)}; no magika"

    def recovers_when_asked(self) -> str:
        """Start with --recover after a clean stop."""
        return f"started with --recover: {self._start_and_expect('REPLAY', '--recover', magika=True)}; magika is back"

    def starts_clean_when_asked(self) -> str:
        """Start with --clean-start."""
        return (
            f"started with --clean-start: {self._start_and_expect('CLEAN', '--clean-start', magika=False)}; no magika"
        )

    def stops_cleanly(self) -> str:
        """SIGTERM, exit code 0, nothing left."""
        traces = Traces.of(self.server)
        code = self.server.stop()
        promised(code == 0, f"the exit code after SIGTERM should be 0, and was {code}")
        left = traces.left_after(GONE_WITHIN)
        promised(not left, f"left behind after the clean stop: {'; '.join(left)}")
        return "stopped with SIGTERM: exit code 0, nothing left"

    def _start_and_expect(self, decision: str, *flags: str, magika: bool) -> str:
        self.server.start(*flags)
        status, recovery = self.server.manage("GET", "/recovery")
        promised(status == 200, f"GET /recovery answered {status} {recovery}")
        decided, reason = str(recovery["decision"]).upper(), recovery["reason"]
        promised(decided == decision, f"the boot decision should be {decision}, and was {decided}: {reason}")
        promised(bool(reason), "the boot decision comes without its reason")
        status, _ = self.server.manage("GET", "/models/magika")
        promised(status == (200 if magika else 404), f"GET /models/magika answered {status}")
        return f"decided {decided}, because {reason}"

    def _describe(self) -> dict[str, Any]:
        status, model = self.server.manage("GET", "/models/magika")
        promised(status == 200, f"GET /models/magika answered {status} {model}")
        return dict(model)


def promised(kept: bool, otherwise: str) -> None:
    """End the story where a promise was not kept."""
    if not kept:
        raise StoryBroken(otherwise)


def check() -> int:
    """The unattended story; 0 if every promise was kept."""
    with tempfile.TemporaryDirectory(prefix="mms-demo-") as name:
        story = Story(Path(name))
        try:
            story.run()
        except StoryBroken as broken:
            print(f"FAILED: {broken}\n--- the end of the server's log ---\n{story.server.log_tail()}", file=sys.stderr)
            return 1
        finally:
            story.server.stop_or_kill()
    print("All promises kept.")
    return 0


def main() -> int:
    """Parse the command line and tell the story."""
    parser = argparse.ArgumentParser(prog="scripts/demo", allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="tell the whole story unattended; exit 0 or 1")
    parser.add_argument("--folder", type=Path, default=ROOT / "demo", help="where models and state are kept")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the server is stopped as well
    return check() if arguments.check else show(arguments.folder.resolve())


if __name__ == "__main__":
    sys.exit(main())
