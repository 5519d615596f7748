"""Why a step of the demo cannot go on."""

from app.demo.process import Process


class StepFailed(Exception):
    """The reason in words, and the process whose log tells more, where there is one."""

    def __init__(self, reason: str, process: Process | None = None) -> None:
        super().__init__(reason)
        self.process = process
