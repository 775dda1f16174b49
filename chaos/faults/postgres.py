"""PostgreSQL under attack: all its processes killed, and a network between it and the server that cuts, delays and swallows."""

from __future__ import annotations

import time

from chaos.column import POSTGRES
from chaos.faults.serving import must_come_back, must_serve, serving
from chaos.story import Story
from chaos.trial import Fault, Trial
from chaos.violation import Violation
from tests.postgres_proxy import Fault as Cut
from tests.postgres_proxy import PostgresProxy

ANSWER_WITHIN = 10.0
BACK_WITHIN = 20.0


def database_killed(trial: Trial) -> None:
    """SIGKILL of every PostgreSQL process under load, and its restart: inference goes on, and the server is not restarted."""
    postgres = trial.databases.postgres
    with trial.story() as story:
        story.boot()
        for rng in trial.rounds():
            story.load().wait_for(rng.randrange(2, 8))
            time.sleep(rng.uniform(0, 0.2))
            answering = serving(story)
            postgres.kill()
            try:
                time.sleep(rng.uniform(0.2, 1.0))
                must_serve(story, answering, "without the store")
            finally:
                postgres.start()
            must_come_back(story, BACK_WITHIN)
            story.judge_living()
            story.load().wait_for(2)
            story.kill()
            story.boot()


def server_killed_while_away(trial: Trial) -> None:
    """The database and then the server are killed: the next boot waits for the one and replays what the other had promised."""
    postgres = trial.databases.postgres
    with trial.story() as story:
        story.boot()
        for rng in trial.rounds():
            story.load().wait_for(rng.randrange(2, 8))
            postgres.kill()
            try:
                story.kill()
                story.site.launch()
                time.sleep(rng.uniform(0.2, 1.5))
            finally:
                postgres.start()
            story.booted()


def network(cut: Cut, trial: Trial) -> None:
    """One fault of the network under load: answers in time, no double effect, and the server comes back by itself."""
    postgres = trial.databases.postgres
    proxy = PostgresProxy(postgres.port)
    direct = trial.databases.fresh(trial.store)
    assert direct is not None
    try:
        with trial.story(store_url=proxy.url(direct)) as story:
            story.boot()
            story.load().wait_for(3)
            answering = serving(story)
            proxy.arm(cut)
            if cut not in (Cut.REFUSE, Cut.HALF_OPEN) and not proxy.struck.wait(15):
                raise Violation("no COMMIT was sent within 15 s under load")
            time.sleep(1.0)
            must_serve(story, answering, "without the store")
            proxy.arm(Cut.NONE)
            must_come_back(story, BACK_WITHIN)
            story.rest()
            _answers_in_time(story)
            story.judge_living()
            story.kill()
            story.boot()
    finally:
        proxy.close()
        trial.databases.keep(direct, trial.folder)


def _answers_in_time(story: Story) -> None:
    for call in story.history.calls(story.history.life):
        if call.returned is not None and call.returned - call.invoked > ANSWER_WITHIN:
            raise Violation(
                f"call {call.number} ({call.verb} {call.model}) was answered after {call.returned - call.invoked:.1f} s"
            )


def _network(name: str, cut: Cut, quick: int) -> Fault:
    return Fault(
        f"network-{name}",
        lambda trial: network(cut, trial),
        quick=quick,
        stores=(POSTGRES,),
        what=f"the network to PostgreSQL: {cut.value}",
    )


FAULTS = (
    Fault("postgres-kill", database_killed, 1, 5, (POSTGRES,), what="SIGKILL of all PostgreSQL processes under load"),
    Fault("postgres-both", server_killed_while_away, 0, 5, (POSTGRES,), what="SIGKILL of PostgreSQL and of the server"),
    _network("cut", Cut.CUT_BEFORE_COMMIT, 0),
    _network("reply", Cut.CUT_AFTER_COMMIT, 1),
    _network("refuse", Cut.REFUSE, 0),
    _network("silent", Cut.SILENT_FROM_COMMIT, 0),
    _network("half-open", Cut.HALF_OPEN, 1),
    _network("slow", Cut.SLOW, 1),
)
