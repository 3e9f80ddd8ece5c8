"""Where the time goes: seconds per step, and a progress line for the person who waits."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from rich.console import Console
from rich.status import Status


@dataclass
class Timings:
    """Measures named steps. With a console, a spinner names the one that runs, and each leaves a line with its seconds."""

    console: Console | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Summed seconds of each step."""
    last: float = 0.0
    """Seconds of the step that ended last."""
    _group: str = ""
    _status: Status | None = None

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure the block as step `name`, added to what the step took before."""
        start = time.perf_counter()
        with self._shown(f"{self._group} · {name}" if self._group else name):
            yield
        self.last = spent = time.perf_counter() - start
        self.seconds[name] = self.seconds.get(name, 0.0) + spent
        if not self._group:
            self._tick(name, spent)

    @contextmanager
    def group(self, name: str) -> Iterator[None]:
        """Several steps that leave one line, such as those of one label window."""
        start = time.perf_counter()
        self._group = name
        with self._shown(name):
            yield
        self._group = ""
        self._tick(name, time.perf_counter() - start)

    @contextmanager
    def _shown(self, text: str) -> Iterator[None]:
        if self._status is not None:
            self._status.update(f"{text} …")
            yield
            return
        with self.console.status(f"{text} …") if self.console else nullcontext() as self._status:
            try:
                yield
            finally:
                self._status = None

    def _tick(self, text: str, spent: float) -> None:
        if self.console is not None:
            self.console.print(f"[green]✓[/] {text} [dim]{spent:.1f} s[/]", highlight=False)
