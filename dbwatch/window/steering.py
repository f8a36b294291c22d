"""What a person may do to the backfill that runs in a window: pause it, let it go on, change its speed. All of it is
journalled."""

from __future__ import annotations

from dbwatch.journal import events as ev
from dbwatch.journal.store import Store
from dbwatch.text import age
from dbwatch.window.intents import Answer
from dbwatch.window.work import Work


class Steering:
    """The hand on the work under way. Every method raises Fenced where our epoch is over."""

    def __init__(self, store: Store, work: Work) -> None:
        self._store = store
        self._work = work

    async def pause(self, step_id: str, actor: str) -> Answer:
        """No further batch of *step_id*, as *actor* wants it."""
        if why := self._does_not_fill(step_id):
            return Answer(False, why)
        if (because := self._work.hand.paused_because) is not None:
            return Answer(True, f"{step_id} stands still already: {because}")
        self._work.hand.pause(f"paused by {actor}")
        await self._store.record(ev.StepNoted(step_id, f"paused by {actor}"))
        return Answer(True, f"{step_id} pauses after this batch")

    async def resume(self, step_id: str, actor: str) -> Answer:
        """Lets *step_id* go on, as *actor* wants it."""
        if why := self._does_not_fill(step_id):
            return Answer(False, why)
        if self._work.hand.paused_because is None:
            return Answer(True, f"{step_id} is not paused: it goes on already")
        self._work.hand.resume()
        await self._store.record(ev.StepNoted(step_id, f"resumed by {actor}"))
        return Answer(True, f"{step_id} goes on")

    def _does_not_fill(self, step_id: str) -> str:
        """Why the backfill *step_id* can be neither paused nor resumed now; empty where it can."""
        running = self._store.state.running
        if running is None or running.id != step_id:
            return f"{step_id} does not run: it is {self._store.state.step(step_id).status}"
        progress = self._work.backfill if self._work.backfilling else None
        return f"no batch of {step_id} is under way" if progress is None or progress.state.ended else ""

    async def change_speed(self, faster: bool) -> Answer:
        """A level *faster*, or gentler."""
        running, hand = self._store.state.running, self._work.hand
        if running is None or not self._work.backfilling:
            return Answer(False, "no backfill is running")
        before, word = hand.level, "faster" if faster else "gentler"
        (hand.faster if faster else hand.slower)()
        if hand.level == before:
            return Answer(False, f"it cannot go {word}")
        await self._store.record(ev.StepNoted(running.id, f"{word} by hand: level {hand.level:+d}"))
        return Answer(True, f"{running.id} goes {word} (level {hand.level:+d})")

    async def set_batch_time(self, seconds: float) -> Answer:
        """What a batch should take from now on."""
        running, hand = self._store.state.running, self._work.hand
        if running is None or not self._work.backfilling:
            return Answer(False, "no backfill is running")
        hand.aim(seconds)
        said = f"a batch should take {seconds * 1000:.0f} ms"
        await self._store.record(ev.StepNoted(running.id, f"{said}, says {self._store.actor}"))
        return Answer(True, f"{running.id}: {said} from now on")

    async def override(self, signal: str, seconds: float) -> Answer:
        """Does not look at the health signal *signal* for so many seconds; 0 looks at it again."""
        running, hand = self._store.state.running, self._work.hand
        if running is None or not self._work.backfilling:
            return Answer(False, "no backfill is running")
        hand.override(signal, seconds)
        if not seconds:  # that it counts again is noted when it does
            return Answer(True, f"{running.id} heeds {signal} again")
        await self._store.record(ev.StepNoted(running.id, f"{self._store.actor} overrides {signal} for {age(seconds)}"))
        return Answer(True, f"{running.id} goes on in spite of {signal} for {age(seconds)}")
