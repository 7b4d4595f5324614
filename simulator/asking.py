"""Effects that are carried out in requests to a bucket: which request comes next, and what becomes of each attempt.

A fault strikes one attempt. Others are made, so clients notice nothing of most faults: then `troubled` stays False,
and a 5xx is a violation. What clients may notice is a request that fails for good. Remains are a violation too, unless
a request failed for good, came late, or began a multipart upload of which nobody was told.
"""

from __future__ import annotations

from typing import Any

from angos.sansio.bucket.attempts import AttemptFailed
from angos.sansio.bucket.requests import (
    BeginPieces,
    CompletePieces,
    Delete,
    DeleteMany,
    Found,
    List,
    Listed,
    ListedUploads,
    ListUploads,
    NotDeleted,
    Put,
)
from angos.sansio.effects import (
    CopyKey,
    CreateKeys,
    DeleteKeysWithin,
    Effect,
    EffectError,
    Key,
    OperationCancelled,
    PromoteParts,
    StorageFull,
    StorageRefused,
)
from angos.simulator.faults import ABSORBED, STALLS_MS, possible_to
from angos.simulator.injection import Injection
from angos.simulator.tasks import Task
from angos.simulator.world.bodies import BodyReadTwice
from angos.simulator.world.carrying import Branch, Carrying
from angos.simulator.world.s3 import S3World


class Asking(Injection):
    """Carries effects out on S3, as badly as the scenario allows."""

    @property
    def _s3(self) -> S3World:
        assert self.world.s3 is not None, "requests are sent to a bucket"
        return self.world.s3

    def _ask(self, task: Task, effect: Effect[Any]) -> None:
        carrying = task.carrying
        if carrying is None:
            try:
                carrying = task.carrying = self._s3.carry_out(effect, task.exchange.replica)
            except BodyReadTwice:
                raise self._read_twice(task) from None
        while not carrying.ended:
            if type(effect) is DeleteKeysWithin:
                if self._is_too_late(task, effect):
                    carrying.abandon()
                    carrying.given_up.clear()  # none is on its way
                    task.carrying = None
                    return
                self._note_removal(carrying)
            self._ask_once(task, effect, carrying)
            if task.carrying is not carrying or task.stalled:  # it has ended with its process, or stands still
                return
            if self._fine:
                break
        if carrying.ended:
            task.carrying = None
            if carrying.error is not None:
                self._fail(task, carrying.error)
                return
            if self.timeline is not None:
                self.timeline.applied(task.name, carrying.value)
            self._resume(task, carrying.value)

    def _note_removal(self, carrying: Carrying) -> None:
        """A request that removes is about to be sent, and may be carried out at any moment from now on."""
        for branch in carrying.waiting:
            match branch.request:
                case Delete(key):
                    self.invariants.removing((Key(key),), self.steps)
                case DeleteMany(keys):
                    self.invariants.removing(tuple(map(Key, keys)), self.steps)
                case _:
                    pass

    def _ask_once(self, task: Task, effect: Effect[Any], carrying: Carrying) -> None:
        waiting = carrying.waiting
        branch = waiting[self.choices.pick("branch", len(waiting)) if len(waiting) > 1 else 0]
        if self.points is not None:
            self.points.add((_where(task, branch), type(branch.request).__name__))
        if not self._faults_possible or task.stalled:
            task.stalled, fault = False, "none"
        else:
            fault = self._pick_of(task, *possible_to(type(branch.request), type(effect), self.scenario.faults))
            if fault != "none":
                self._note_fault(task, fault, _where(task, branch), type(branch.request).__name__)
        request, told = branch.request, "stands still"
        assert request is not None, "an attempt is of a request"
        if fault == "none":
            told = self._exchange(carrying, branch)
        elif fault == "stall":
            task.stalled = True
            self._sleep_until(task, self._clock.now_ms + STALLS_MS[self.choices.pick("stall", len(STALLS_MS))])
        elif fault in ("crash", "kill", "cancel"):
            told = "never told"
            self._end(task, carrying, branch, fault)
        else:
            told = self._strike_attempt(task, effect, carrying, branch, fault)
        if fault == "late" or (fault == "lost_reply" and isinstance(request, BeginPieces)):
            self.littered = True
        self.littered = self.littered or self.troubled
        while carrying.given_up:
            on_its_way = carrying.given_up.pop(0)
            if self.choices.pick("given up", 2):
                self._s3.take_quietly(on_its_way)
        if self.timeline is not None:
            self.timeline.asked(self.steps, self._clock.now_ms, task.name, request, told)

    def _exchange(self, carrying: Carrying, branch: Branch) -> str:
        """The request arrives, and so does its answer."""
        try:
            reply = carrying.apply(branch)
        except EffectError as error:
            carrying.fail(branch, error)
            return f"! {error}"
        carrying.answer(branch, reply)
        return "" if self.timeline is None else _brief(reply)

    # --- faults -------------------------------------------------------------------------------------------------------

    def _strike_attempt(self, task: Task, effect: Effect[Any], carrying: Carrying, branch: Branch, fault: str) -> str:
        request, s3, pick = branch.request, self._s3, self.choices.pick
        assert request is not None, "an attempt is of a request"
        if fault not in ABSORBED or (
            isinstance(request, CompletePieces) and isinstance(effect, (PromoteParts, CopyKey))
        ):
            # Whether a blob was put together cannot be told afterwards: somebody else may have made the same one.
            self.troubled = True
        match fault:
            case "lost_request":
                return self._no_answer(carrying, branch, "the request was lost")
            case "throttled":
                return self._no_answer(carrying, branch, "503 SlowDown")
            case "lost_reply":
                s3.take_quietly(request)
                return self._no_answer(carrying, branch, "the reply was lost")
            case "late":
                until_ms = None
                if isinstance(effect, DeleteKeysWithin):
                    until_ms = task.issued_ms + int(effect.within_seconds * 1000)
                self._late.append((request, task.exchange.replica, until_ms))
                if isinstance(request, Put) and isinstance(effect, CreateKeys):
                    task.exchange.arrives_late = True
                return self._no_answer(carrying, branch, "no answer yet")
            case "twice":
                return self._exchange_twice(carrying, branch)
            case "partial" if isinstance(request, DeleteMany):
                left = tuple(key for key in request.keys if not pick("entry", 2))
                gone = tuple(key for key in request.keys if key not in left)
                if gone:
                    s3.take_quietly(DeleteMany(gone))
                again = not pick("again", 2)
                self.troubled = self.troubled or not again
                carrying.answer(branch, tuple(NotDeleted(again, "InternalError") for _ in left))
                return f"{len(left)} not deleted"
            case "refused":
                kind = (StorageFull, StorageRefused)[pick("refusal", 2)]
                carrying.fail(branch, kind("the store refuses"))
                return "refused"
            case "short_page" if isinstance(request, List):
                carrying.answer(branch, s3.bucket.page(request, pick("page", 2)))
                return "a short page"
            case "short_page" if isinstance(request, ListUploads):
                carrying.answer(branch, s3.bucket.page_of_uploads(request, pick("page", 2)))
                return "a short page"
            case "expired":
                s3.bucket.uploads.pop(getattr(request, "upload_id", ""), None)
                return self._exchange(carrying, branch)
            case "lapse":
                self.world.leases.forget()
                self._wake_waiters()
                return self._exchange(carrying, branch)
            case _:
                raise AssertionError(f"unknown fault {fault}")

    def _no_answer(self, carrying: Carrying, branch: Branch, why: str) -> str:
        request = branch.request
        carrying.fail(branch, AttemptFailed(why))
        if branch.request is not request:  # it was the last attempt
            self.troubled = True
        return f"! {why}"

    def _exchange_twice(self, carrying: Carrying, branch: Branch) -> str:
        first: Any = None
        try:
            first = carrying.apply(branch)
            second = carrying.apply(branch)
        except EffectError as error:
            carrying.fail(branch, error)
            return f"! {error}"
        reply = (first, second)[self.choices.pick("answer", 2)]
        carrying.answer(branch, reply)
        return f"twice: {_brief(reply)}"

    def _end(self, task: Task, carrying: Carrying, branch: Branch, fault: str) -> None:
        self.troubled = True
        request = branch.request
        assert request is not None, "an attempt is of a request"
        if self.choices.pick("moment", 2):
            self._s3.take_quietly(request)
        if fault == "cancel":
            carrying.cancel()
            task.carrying = None
            self._fail(task, OperationCancelled())
        else:
            self._end_processes(task, fault)
            task.carrying = None
        carrying.given_up = [each for each in carrying.given_up if each is not request]


def _brief(reply: Any) -> str:
    match reply:
        case Found(size):
            return f"{size}B"
        case bytes() | bytearray():
            return f"{len(reply)}B"
        case Listed(keys, folders, token):
            return f"{len(keys) + len(folders)} names{', more' if token is not None else ''}"
        case ListedUploads(uploads):
            return f"{len(uploads)} uploads"
        case None:
            return "-"
        case ():
            return "all"
        case _:
            return str(reply)


def _where(task: Task, branch: Branch) -> str:
    return f"{task.operation.where()} > {branch.where()}"
