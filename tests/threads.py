"""Threads that do a test's work and end with it. Those that only serve it, such as a server's, stand with their tests."""

import threading
import time

__all__ = ["Threads"]

#: Seconds that all of them together may take to end, less than a test may.
PATIENCE = 120.0


class Threads:
    """Threads that are joined at the end of a `with`, and whose errors become the test's."""

    def __init__(self):
        self.threads, self.errors = [], []

    def start(self, work, *arguments):
        def body():
            try:
                work(*arguments)
            except BaseException as error:
                self.errors.append(error)

        thread = threading.Thread(target=body, daemon=True)
        self.threads.append(thread)
        thread.start()
        return thread

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        deadline = time.monotonic() + PATIENCE
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        hung = [thread.name for thread in self.threads if thread.is_alive()]
        if kind is None:
            assert not hung, f"threads that do not end: {hung}"
            assert not self.errors, self.errors
