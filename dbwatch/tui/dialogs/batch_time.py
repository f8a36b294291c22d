"""What a batch of the running backfill should take: shorter disturbs others less, longer is done sooner."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Input

from dbwatch.backfill.control import LONGEST_BATCH_S, SHORTEST_BATCH_S
from dbwatch.backfill.progress import BackfillProgress
from dbwatch.text import one_line, seconds
from dbwatch.tui.dialogs.dialog import Dialog, labelled
from dbwatch.tui.say import BAD

ASKS = "A batch should take (50, 50ms, 0.2s):"


def read(written: str) -> float | str:
    """The seconds in *written*, a bare number being milliseconds; or what is wrong with it. Pure."""
    wanted = one_line(written).strip()
    try:
        length = float(wanted) / 1000 if wanted.replace(".", "", 1).isdecimal() else seconds(wanted)
    except ValueError:
        return "no time: write 50 or 50ms or 0.2s"
    return length if SHORTEST_BATCH_S <= length <= LONGEST_BATCH_S else "out of range: 10 ms to 10 s"


class BatchTimeDialog(Dialog[float]):
    """Asks for the time. The result is in seconds."""

    heading = "What a batch should take"
    placeholder = ""
    prompt = ASKS

    def __init__(self, progress: BackfillProgress) -> None:
        super().__init__()
        self._progress = progress
        self.offer([("Enter", "takes it from the next batch on"), ("Esc", "back")])

    def on_mount(self) -> None:
        super().on_mount()
        progress = self._progress
        level = f", manual speed {progress.level:+d} makes it {progress.target_ms:.0f} ms" if progress.level else ""
        rows = [
            ("now", f"{progress.base_target_ms:.0f} ms{level}; the last one took {progress.batch_ms:.0f} ms"),
            ("then", "the size of a batch follows, down at once, up step by step; its timeouts too"),
            ("until", "it ends; begun again it goes by the runbook"),
        ]
        self.body.show(labelled(rows, self.room))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Hands the time in, if it is one."""
        event.stop()
        found = read(event.value)
        if isinstance(found, float):
            self.dismiss(found)
        else:
            self.prompt_line.show(Content.assemble(ASKS, (f" ✗ {found}", BAD)))
