"""SIGINT (Ctrl-C) and SIGTERM as a wish to stop, which a loop grants where it can be resumed."""

import os
import signal
import threading
from types import FrameType

import torch
from accelerate import Accelerator

from utils.processes import together

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Within ``with StopSignals() as stop`` the first of `SIGNALS` is noted and does nothing else;
    a second Ctrl-C interrupts at once.

    What the process was told to ignore stays ignored. Only a main thread can note signals.
    """

    def __init__(self) -> None:
        self.noted = 0

    def __enter__(self) -> "StopSignals":
        here = threading.current_thread() is threading.main_thread()
        before = {number: signal.getsignal(number) for number in SIGNALS if here}
        self.before = {n: handler for n, handler in before.items() if handler != signal.SIG_IGN}
        for number in self.before:
            signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.noted = self.noted or number
        # print() must not run in a handler: the signal may have come in the middle of another one
        os.write(2, b"\nfinishing this step, then saving; Ctrl-C ends at once, without\n")

    def agreed(self, accelerator: Accelerator, wish: bool = False) -> tuple[int, bool]:
        """The number of the signal that any of the processes has noted, or 0, and whether any has
        the `wish` to save; the same in all."""
        if accelerator.num_processes == 1:
            return self.noted, wish
        own = torch.tensor([[self.noted, int(wish)]], device=accelerator.device)
        with together():
            noted, wished = accelerator.gather(own).amax(dim=0).tolist()
        return noted, bool(wished)
