"""What must hold while the store is away: models that were in service answer, and changes are possible again by themselves."""

from __future__ import annotations

from chaos.history import Outcome
from chaos.site import MODELS, until
from chaos.story import Story
from chaos.violation import Violation


def serving(story: Story) -> list[str]:
    """The models that answer now."""
    return [name for name in MODELS if story.site.predict(name, "ask").status_code == 200]


def must_serve(story: Story, answered: list[str], when: str) -> None:
    """Inference does not depend on the store. `answered` are the models that did before.

    A model may have been unregistered since (404); every other answer is its own output.
    """
    for name in answered:
        answer = story.site.predict(name, "ask")
        if (answer.status_code, answer.text) != (200, f"{name}:ask") and answer.status_code != 404:
            raise Violation(f"{when} {name} answers {answer.status_code}: {answer.text[:200]}")


def must_come_back(story: Story, within: float) -> None:
    """A change is acknowledged within so many seconds from now."""
    life = story.history.life
    noted = len(story.history.calls(life))

    def acknowledged() -> bool:
        return any(call.key and call.outcome is Outcome.OK for call in story.history.calls(life)[noted:])

    until(acknowledged, within, "an acknowledged change after the store was back")
