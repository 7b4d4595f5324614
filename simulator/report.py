"""What a person sees of a run: one sentence, the command that replays it, a timeline with a column for each client, and
what the run changed in the world."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from angos.sansio.trace import VERSION, TraceInvalid, read_lines, write_lines
from angos.simulator.choices import Choices, Pick, Recorded, Recording
from angos.simulator.oracle.violation import Violation
from angos.simulator.scenario import Scenario
from angos.simulator.simulation import Simulation
from angos.simulator.timeline import Entry, Timeline

COLUMN = 44


class Report:
    """A run, played once more with everything written down."""

    def __init__(self, scenario: Scenario, choices: Choices, *, until: int | None = None, found_by: str = "") -> None:
        self.scenario = scenario
        self.found_by = found_by
        self._recording = Recording(choices)
        self.timeline = Timeline()
        self.simulation = Simulation(scenario, self._recording, timeline=self.timeline, stop_at=until)
        self.violation: Violation | None = self.simulation.run()

    @property
    def picks(self) -> list[Pick]:
        """Every decision of the run."""
        return self._recording.picks

    def trace(self) -> str:
        """The text of a trace of kind ``choices``."""
        header: dict[str, Any] = {"trace": VERSION, "kind": "choices", "scenario": _sparse(self.scenario)}
        if self.found_by:
            header["found_by"] = self.found_by
        if self.violation is not None:
            header["violates"] = self.violation.kind
            header["sentence"] = self.violation.sentence
        picks = [{"pick": pick.what, "of": pick.count, "is": pick.value} for pick in self.picks]
        entries = [
            {"n": entry.step, "ms": entry.at_ms, "task": entry.task, entry.what: True, **entry.facts}
            for entry in self.timeline.entries
        ]
        return write_lines([header, *picks, *entries])

    def text(self, *, replay: str = "", diff: bool = True) -> str:
        """For the terminal."""
        lines = [str(self.violation) if self.violation is not None else "nothing was violated"]
        if replay:
            lines.append(f"replay: python -m angos.simulator replay {replay}")
        lines += ["", *_columns(self.timeline.entries)]
        if diff:
            store = self.simulation.world.store
            lines += ["", "in the store:"]
            for name in store.names(""):
                size = len(store.get(name) or b"")
                mark = "" if store.surviving(name) == store.get(name) else "   (not durable)"
                lines.append(f"  {size:5d}  {name}{mark}")
        for where in self.simulation.waiting():
            lines.append(where)
        return "\n".join(lines) + "\n"


def _columns(entries: Iterable[Entry]) -> list[str]:
    entries = list(entries)
    clients = list(dict.fromkeys(entry.task.partition("/")[0] for entry in entries if entry.task))
    width = COLUMN if len(clients) > 1 else 100
    lines = ["  step      ms  " + "".join(f"{client:{width}}" for client in clients)]
    fault = ""
    for entry in entries:
        if entry.what == "fault":
            fault = f"  << {entry.facts['fault']}"
            continue
        if entry.what in ("apply", "fail"):
            text = (
                f"   {_brief(entry.facts['reply'].get('reply'))}"
                if entry.what == "apply"
                else f"   ! {entry.facts['error']}"
            )
            text = f"{text}{fault}"
            fault = ""
        elif entry.what == "ask":
            text = f"   . {entry.facts['request']} {entry.facts['told']}{fault}  {_brief(entry.facts['of'])}"
            fault = ""
        elif entry.what == "sent":
            text = f"> {entry.facts['request'].replace('/v2/', '', 1)} ({entry.facts['body']})"
        elif entry.what == "answer":
            status = entry.facts["status"]
            text = f"< {status if status is not None else 'no answer'}"
        elif entry.what == "note":
            lines.append(f"{entry.step:6d} {entry.at_ms:7d}  -- {entry.facts['note']} --")
            continue
        else:
            text = f" {_brief_effect(entry.facts['effect'])}"
        column = clients.index(entry.task.partition("/")[0])
        lines.append(f"{entry.step:6d} {entry.at_ms:7d}  {' ' * (width * column)}{text[: width - 1]}".rstrip())
    return lines


def _brief_effect(effect: dict[str, Any]) -> str:
    arguments = ", ".join(_brief(value) for name, value in effect.items() if name not in ("is", "after", "limit"))
    return f"{effect['is']} {arguments}"


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_brief(item) for item in value) + "]"
    if isinstance(value, dict):
        if "text" in value:
            return f"{len(value['text'])}B"
        if "base64" in value:
            return f"{len(value['base64']) * 3 // 4}B"
        return ",".join(_brief(item) for name, item in value.items() if name != "is")
    if isinstance(value, str):
        parts = [
            part[:8] + "~" if len(part) > 20 and not set(part) - set("0123456789abcdef") else part
            for part in _pieces(value)
        ]
        return (
            "".join(parts)
            .replace("v2/repositories/", "")
            .replace("00000000-0000-4000-8000-0000000", "")
            .replace("v2/", "")
        )
    return str(value)


def _pieces(text: str) -> list[str]:
    pieces = [""]
    for character in text:
        if character in "/.!:":
            pieces += [character, ""]
        else:
            pieces[-1] += character
    return pieces


def _sparse(scenario: Scenario) -> dict[str, Any]:
    """The scenario without what is at its default."""
    default = Scenario()
    value = {name: item for name, item in scenario.to_json().items() if item != getattr(default, name)}
    for name in ("clients", "before"):
        if name in value:
            groups = getattr(scenario, name)
            sparse = [[_sparse_act(act) for act in acts] for acts in (groups if name == "clients" else (groups,))]
            value[name] = sparse if name == "clients" else sparse[0]
    return value


def _sparse_act(act: Any) -> dict[str, Any]:
    default = asdict(type(act)(act.verb))
    return {name: item for name, item in asdict(act).items() if name == "verb" or item != default[name]}


def read_trace(text: str) -> tuple[Scenario, list[Pick], str | None]:
    """The scenario, the decisions and the violation of a trace of kind ``choices``. Raises `TraceInvalid`."""
    lines = read_lines(text)
    if lines[0].get("kind") != "choices":
        raise TraceInvalid(f"line 1: this is a trace of {lines[0].get('kind')!r}, not of the choices of a run")
    try:
        scenario = Scenario.from_json(lines[0]["scenario"])
        picks = [Pick(line["pick"], line["of"], line["is"]) for line in lines[1:] if "pick" in line]
    except (KeyError, TypeError) as error:
        raise TraceInvalid(f"the trace lacks something: {error}") from None
    return scenario, picks, lines[0].get("violates")


def replay(text: str, *, until: int | None = None) -> Report:
    """Play a trace again. Raises `Diverged` when the code decides something else than it did."""
    scenario, picks, _ = read_trace(text)
    return Report(scenario, Recorded(picks), until=until)
