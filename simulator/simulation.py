"""A whole run: clients that send requests, get answers and go on; and, at the end, everybody who looks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from angos.sansio import registry
from angos.sansio.effects import BodyHandle
from angos.sansio.http.message import (
    Absent,
    Body,
    FromFill,
    FromKey,
    FromUpstream,
    Header,
    Headers,
    Inline,
    Redirect,
    Request,
    Response,
    Slices,
)
from angos.sansio.operation import Operation
from angos.sansio.pulls import Written, write_pulls
from angos.simulator.asking import Asking
from angos.simulator.choices import Calm, Choices
from angos.simulator.oracle.access import AccessOracle
from angos.simulator.oracle.history import Answer
from angos.simulator.oracle.violation import Violation
from angos.simulator.scenario import Scenario
from angos.simulator.scheduler import Stopped
from angos.simulator.tasks import Client, Exchange, Task
from angos.simulator.timeline import Timeline
from angos.simulator.world.chores import chore
from angos.simulator.world.client import Act, Call, Script, Shared
from angos.simulator.world.people import PEOPLE
from angos.simulator.world.scripts import COLLECT, SWEEP, WRITE_PULLS, play

PULLS_AT_ONCE = 100
DEPTH = 3
"""Runs after which nothing is left that a run before has made needless."""


class Simulation(Asking):
    """One run. `run` plays it to its end and gives the violation that was found, if any."""

    def __init__(
        self,
        scenario: Scenario,
        choices: Choices,
        *,
        timeline: Timeline | None = None,
        stop_at: int | None = None,
    ) -> None:
        super().__init__(scenario, choices, timeline=timeline, stop_at=stop_at)
        self.on_answer: Callable[[Call, Answer | None], None] | None = None
        """Told of every answer, for whoever wants to compare it with something."""
        self.shared = Shared()
        self._config = scenario.registry_config
        self.troubled = self.littered = bool(scenario.quirks)
        acts = (act for acts in scenario.clients for act in acts)
        self._collecting = any(act.verb in ("collect", "prune") for act in acts)
        self._access = AccessOracle() if self.world.private is not None else None

    def run(self) -> Violation | None:
        """Prepare in peace, let the clients work, let everything settle, and look at what is there."""
        try:
            self._play_in_peace(self.scenario.before, "before")
            if self.scenario.aged:
                self._let_days_pass()
            self._faults_left = self.scenario.faults_max
            for number, acts in enumerate(self.scenario.clients):
                self.begin(f"client-{number}", acts, replica=number)
            self.settle()
            if self.stop_at is None:
                self.look_around()
        except Violation as violation:
            return violation
        except Stopped:
            return None
        finally:
            if self.stop_at is None:
                self._close()
        return None

    def begin(self, name: str, acts: tuple[Act, ...], *, replica: int = 0) -> None:
        """A client starts to work."""
        client = Client(name, deque(acts), replica % len(self.world.replicas))
        self._go_on(client, None)

    def settle(self) -> None:
        """Step until nothing is left to happen."""
        while self.step():
            pass

    def calls(self, calls: list[Call], name: str = "audit") -> None:
        """Make these requests one after the other, in peace."""
        before, self.choices = self.choices, Calm()
        faults, self._faults_left = self._faults_left, 0
        client = Client(name, deque())
        client.script = _script(calls)
        self._take_answer(client, None, first=True)
        self.settle()
        self.choices, self._faults_left = before, faults

    def look_around(self) -> None:
        """The end of a run: on a disk a power cut at rest; then everything is read once more, and the oracle judges."""
        faulty = self.littered
        if self.world.disk is not None and "crash" in self.scenario.faults:
            self.cut_power(at_rest=True)
            faulty = True
        self.calls(self.invariants.audit())
        self.invariants.judge()
        if self.scenario.records_pulls:
            self.calls([WRITE_PULLS] * len(self.world.replicas))
            self.pulls.judge()
        if self._collecting:
            self._collect_everything()
        private = self.world.private
        # Who was cancelled may have asked, and was not there for the answer.
        if (
            self._access is not None
            and private is not None
            and self.world.leases.were_exclusive
            and not self.fired["cancel"]
        ):
            self._access.judge_fetches(private.fetches)
        temporaries = self.world.disk.disk.temporaries() if self.world.disk is not None else []
        leases = self.world.leases.held(self.world.clock.now_ms)
        self.invariants.at_rest(leases, temporaries, faulty=faulty)
        if self.world.s3 is not None:
            self.invariants.bucket_at_rest(self.world.s3.bucket.uploads, self.scenario.quirks, faulty=faulty)

    def _let_days_pass(self) -> None:
        config = self._config
        longest = max(config.collection_grace_seconds, config.tag_history_seconds, config.upload_expiry_seconds)
        self.world.clock.now_ms += 2 * int(longest * 1000)
        self.invariants.aged(self.steps, in_peace=True)

    def _collect_everything(self) -> None:
        """With time enough and in peace, the collector finds all that nobody needs: whatever was started has ended or
        never will. After faults it has to be told to look at everything, as a crash may leave bytes that nobody named.
        """
        if set(self.fired) - {"stall"} or "crash" in self.scenario.faults:
            self.calls([SWEEP], "sweep")
        for _ in range(DEPTH):
            self._let_days_pass()
            self.calls([COLLECT], "collector")
        self.invariants.exact()
        if self.world.s3 is not None and "keeps pieces" not in self.scenario.quirks:
            self.invariants.bucket_at_rest(self.world.s3.bucket.uploads, self.scenario.quirks, faulty=False)

    def _play_in_peace(self, acts: tuple[Act, ...], name: str) -> None:
        if acts:
            before, self.choices = self.choices, Calm()
            self.begin(name, acts)
            self.settle()
            self.choices = before

    # --- requests and answers -----------------------------------------------------------------------------------------

    def _finished(self, exchange: Exchange, value: Any) -> None:
        if exchange.call.chore:
            if isinstance(value, Written):
                self._pulls_written(exchange, value)
            self._take_answer(exchange.client, None)
            return
        answer = self._answer_of(value)
        # A collector that takes its time keeps others waiting, and at last they give up.
        faulty = self.troubled or self._collecting
        if self._access is not None:
            # Time may pass while somebody else asks a provider: to those who wait that is an outage.
            faulty = faulty or self.world.leases.waited_in_vain
            self._access.answered(exchange.client.who, exchange.call, answer, faulty=faulty)
        called, effects = exchange.called, exchange.effects
        self.invariants.answered(exchange.call, value, answer, called=called, effects=effects, faulty=faulty)
        self._tell(exchange, answer)

    def _pulls_written(self, exchange: Exchange, written: Written) -> None:
        assert exchange.book is not None
        exchange.book.give_back(written.failed)
        self.pulls.written(written.recorded)

    def _answer_of(self, response: Response) -> Answer:
        """What the client ends up with: one that is sent to the store goes there."""
        headers = {name.lower(): value for name, value in response.headers}
        if isinstance(response.body, Redirect):
            found = self.world.at(response.body.address)
            return Answer(200 if found is not None else 404, headers, found or b"")
        return Answer(response.status, headers, self._bytes_of(response.body))

    def _bytes_of(self, body: Body) -> bytes:
        match body:
            case Inline():
                return body.value
            case Absent() | Redirect():
                return b""
            case FromKey():
                return (self._store.get(body.key) or b"")[body.start : body.start + body.length]
            case Slices():
                value = self._store.get(body.key) or b""
                pieces = (before + value[start : start + length] for before, start, length in body.slices)
                return b"".join(pieces) + body.closing
            case FromFill() | FromUpstream():
                raise NotImplementedError("this world has no upstreams")

    def _tell(self, exchange: Exchange, answer: Answer | None) -> None:
        """The client learns how it ended; None: that the connection broke."""
        if answer is not None and self.scenario.lossy_answers and exchange.client.script is not None:
            lost = self.choices.pick("fault:answer", 2)
            if lost and self._faults_left:
                self._faults_left -= 1
                self.fired["lost_answer"] += 1
                self.troubled = self.littered = True
                answer = None
        if self.timeline is not None:
            self.timeline.answered(self.steps, self.world.clock.now_ms, exchange.client.name, exchange.call, answer)
        call = exchange.call
        if call.chore:
            if exchange.book is not None:
                exchange.book.give_back(exchange.pulls)  # of the dead, too: nobody reads it
            self._take_answer(exchange.client, None)
            return
        if self.on_answer is not None:
            self.on_answer(call, answer)
        self.invariants.told(call, answer, exchange.called, self.steps)
        client = exchange.client.name
        self.history.add(call.intents, exchange.called, self.steps, answer, client, again=exchange.arrives_late)
        self._take_answer(exchange.client, answer)

    def _take_answer(self, client: Client, answer: Answer | None, *, first: bool = False) -> None:
        assert client.script is not None
        try:
            call = next(client.script) if first else client.script.send(answer)
        except StopIteration:
            client.script = None
            self._go_on(client, None)
        else:
            self._send(client, call)

    def _go_on(self, client: Client, answer: Answer | None) -> None:
        while client.acts:
            act = client.acts.popleft()
            client.script, client.who = play(act, self.shared), PEOPLE[act.who]
            try:
                call = next(client.script)
            except StopIteration:
                continue
            self._send(client, call)
            return

    def _send(self, client: Client, call: Call) -> None:
        replicas = self.world.replicas
        if call.elsewhere:
            client.replica = (client.replica + 1) % len(replicas)
        exchange = Exchange(client, call, replicas[client.replica])
        handle = self.world.open_body(call.body)
        length = call.body.content_length
        fields = call.headers
        if self._access is not None:
            fields += self._shown_by(client)
            self._access.sent(client.who, call)
        request = Request(call.method, call.target, Headers(fields), BodyHandle(handle), length)
        self.invariants.sent(call)
        # Looked up when it is needed, so that a test can break it.
        operation = self._chore(exchange) if call.chore else registry.handle(request, self._config)
        self._ready.append(Task(client.name, exchange, operation))
        if self.timeline is not None:
            self.timeline.sent(self.steps, self.world.clock.now_ms, client.name, call, exchange.replica)

    def _chore(self, exchange: Exchange) -> Operation[Any]:
        if exchange.call is WRITE_PULLS:
            exchange.book = self.world.books[exchange.replica]
            exchange.pulls = exchange.book.take(PULLS_AT_ONCE)
            return Operation(write_pulls(exchange.pulls))
        return chore(exchange.call.chore, self._config)

    def _shown_by(self, client: Client) -> tuple[Header, ...]:
        private = self.world.private
        value = None if private is None else private.authorization(client.who)
        return () if value is None else (("authorization", value),)


def _script(calls: list[Call]) -> Script:
    for call in calls:  # noqa: UP028 - answers are sent in, which a list does not take
        yield call
