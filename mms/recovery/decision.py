"""The boot decision: facts and options in, decision and reason out; pure, no database, no clock."""

from __future__ import annotations

from collections.abc import Iterator

from mms.errors import UsageError
from mms.records import (
    BootDecision,
    BootFacts,
    BootOptions,
    Decision,
    GenerationSummary,
    Incarnation,
    IncarnationState,
    RecoveryMode,
)

FAILED_BOOTS_FOR_SAFE_MODE = 3  # boots in a row that crashed while BOOTING

_STOPPED_WHILE = {
    IncarnationState.BOOTING: "booting",
    IncarnationState.RUNNING: "running",
    IncarnationState.STOPPING: "shutting down",
}
_MODE_FOR_FLAG = {"--clean-start": "recovery_mode=never", "--recover": "recovery_mode=always"}


def decide(facts: BootFacts, options: BootOptions) -> BootDecision:
    """The first row of the decision table that fits (docs/recovery.md shows the same table).

    Raises UsageError for `--recover` together with `--clean-start`.
    """
    if options.recover and options.clean_start:
        raise UsageError("--recover and --clean-start contradict each other: give only one of them")
    if _wants_clean(options):
        return _clean(facts, options)
    if facts.last is None:
        return _first(facts, options)
    if _wants_recovery(options):
        return _recover(facts, facts.last, options)
    if facts.last.crashed:
        return _replay_after_crash(facts, facts.last, options)
    return _manifest(facts, facts.last, options)


def _wants_clean(options: BootOptions) -> bool:
    """Flags beat the mode: `--recover` overrules `recovery_mode=never`."""
    return options.clean_start or (options.recovery_mode is RecoveryMode.NEVER and not options.recover)


def _wants_recovery(options: BootOptions) -> bool:
    return options.recover or options.recovery_mode is RecoveryMode.ALWAYS


def _clean(facts: BootFacts, options: BootOptions) -> BootDecision:
    asked = "--clean-start was given" if options.clean_start else "recovery_mode=never"
    reason = f"{asked}: only the configured start-up models are loaded, and earlier registrations are set aside"
    left = [g for g in _newest_first(facts) if g.registrations and not g.abandoned]
    warnings = (*_repeated_flags(facts, options), *(_left_behind(g, recoverable=False) for g in left))
    return BootDecision(Decision.CLEAN, reason, None, warnings)


def _first(facts: BootFacts, options: BootOptions) -> BootDecision:
    reason = "no server has used this store before: the configured start-up models are loaded"
    warnings = ("--recover was given, but there is nothing to recover: this store is new",) if options.recover else ()
    return BootDecision(Decision.MANIFEST, reason, None, warnings)


def _recover(facts: BootFacts, last: Incarnation, options: BootOptions) -> BootDecision:
    asked = "--recover was given" if options.recover else "recovery_mode=always"
    chosen = _recoverable(facts)
    generation = last.generation if chosen is None else chosen.generation
    warnings = list(_repeated_flags(facts, options))
    if chosen is None:
        reason = f"{asked}: no generation holds API changes, so the last one, generation {generation}, is continued"
        if options.recover:
            warnings.append("--recover was given, but there is nothing to recover: no generation holds API changes")
    else:
        reason = f"{asked}: generation {generation} is the newest that holds API changes ({_how_it_ended(last)})"
    warnings += _warn_left_behind(facts, last, generation)
    return _with_safe_mode(BootDecision(Decision.REPLAY, reason, generation, tuple(warnings)), facts, options)


def _replay_after_crash(facts: BootFacts, last: Incarnation, options: BootOptions) -> BootDecision:
    warnings = tuple(_warn_left_behind(facts, last, last.generation))
    replay = BootDecision(Decision.REPLAY, _how_it_ended(last), last.generation, warnings)
    return _with_safe_mode(replay, facts, options)


def _manifest(facts: BootFacts, last: Incarnation, options: BootOptions) -> BootDecision:
    reason = f"{_how_it_ended(last)}: the configured start-up models are loaded"
    warnings = (*_repeated_flags(facts, options), *_warn_left_behind(facts, last, None))
    return BootDecision(Decision.MANIFEST, reason, None, warnings)


def _with_safe_mode(decision: BootDecision, facts: BootFacts, options: BootOptions) -> BootDecision:
    """The same replay, but nothing loaded, once boots keep crashing; a flag given by hand is an operator who is there."""
    if facts.failed_boots < FAILED_BOOTS_FOR_SAFE_MODE or options.flags:
        return decision
    warning = (
        f"The last {facts.failed_boots} boots crashed, so this one is in safe mode: every registration is known, "
        "nothing is loaded, management is open; `mms recovery resume` loads the models"
    )
    reason = f"{decision.reason}; safe mode, since {facts.failed_boots} boots in a row crashed"
    return BootDecision(decision.decision, reason, decision.generation, (*decision.warnings, warning), safe_mode=True)


def _how_it_ended(last: Incarnation) -> str:
    who = f"the last server (epoch {last.epoch}, pid {last.identity.pid} on {last.identity.host})"
    if not last.crashed:
        return f"{who} stopped cleanly"
    if last.state is IncarnationState.BOOTING and last.stop_reason:
        return f"{who} was told to stop while booting ({last.stop_reason}), so its boot is repeated"
    return f"{who} stopped while {_STOPPED_WHILE[last.state]}, without the clean-shutdown mark"


def _newest_first(facts: BootFacts) -> list[GenerationSummary]:
    return sorted(facts.generations, key=lambda g: g.generation, reverse=True)


def _recoverable(facts: BootFacts) -> GenerationSummary | None:
    """The generation that `--recover` means: the newest, not abandoned, that holds API changes."""
    return next((g for g in _newest_first(facts) if g.changes and not g.abandoned), None)


def _repeated_flags(facts: BootFacts, options: BootOptions) -> Iterator[str]:
    """A one-shot flag baked into a start command acts at every crash: say so, and name the setting that is meant for it."""
    for flag in options.flags:
        if facts.last is not None and flag in facts.last.flags:
            yield (
                f"{flag} was also given at the last boot: it is meant for one boot, "
                f"so remove it from the start command, or set {_MODE_FOR_FLAG[flag]} if every boot should do this"
            )


def _warn_left_behind(facts: BootFacts, last: Incarnation, continued: int | None) -> Iterator[str]:
    """Of the generations that this boot does not continue: the last one and the one `--recover` means. Older ones were said before."""
    chosen = _recoverable(facts)
    relevant = {last.generation} | ({chosen.generation} if chosen else set())
    for generation in _newest_first(facts):
        number = generation.generation
        if number in relevant and number != continued and generation.registrations and not generation.abandoned:
            yield _left_behind(generation, recoverable=chosen is not None and chosen.generation == number)


def _left_behind(generation: GenerationSummary, *, recoverable: bool) -> str:
    number, count = generation.generation, generation.registrations
    noun = "registration" if count == 1 else "registrations"
    command = f"`mms restore --to-generation {number}` brings them back now"
    if recoverable:
        command += ", --recover at the next start"
    return f"Generation {number} with {count} {noun} is left behind: {command}"
