"""Questions of many requests, answered together by the one thread that runs a model."""

import asyncio
import queue
import threading
import time

END = object()


class Busy(Exception):
    """So many questions wait already that one more would not be answered in time."""


class TooLate(Exception):
    """The answer did not come in time."""


class Batcher:
    def __init__(self, answer, most, waiting, company_seconds):
        """
        Args:
            answer: [question] -> [its answer, or an exception that is one]; called by one thread alone.
            most: questions answered together.
            waiting: questions that may wait.
            company_seconds: how long a question waits for others.
        """
        self.answer, self.most, self.company_seconds = answer, most, company_seconds
        self.waiting = queue.Queue(waiting)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    async def ask(self, question, seconds=None):
        """The answer to a question; one that comes too late is left out, unless it was begun.

        Raises:
            Busy, TooLate
        """
        future = asyncio.get_running_loop().create_future()
        try:
            self.waiting.put_nowait((question, future))
        except queue.Full:
            raise Busy from None
        try:
            return await asyncio.wait_for(future, seconds)
        except asyncio.TimeoutError:
            raise TooLate from None

    def close(self):
        """Answers what waits, and ends the thread."""
        self.waiting.put(END)
        self.thread.join()

    def run(self):
        ended = False
        while not ended:
            asked = self.gathered()
            ended = END in asked
            asked = [one for one in asked if one is not END and not one[1].cancelled()]
            if not asked:
                continue
            questions, futures = zip(*asked, strict=True)
            try:
                answers = self.answer(questions)
            except Exception as error:  # a bug; whoever asked is told, and the thread lives on
                answers = [error] * len(questions)
            futures[0].get_loop().call_soon_threadsafe(settle, futures, answers)

    def gathered(self):
        """What waits, and what comes meanwhile."""
        asked, until = [self.waiting.get()], time.monotonic() + self.company_seconds
        while len(asked) < self.most and asked[-1] is not END:
            try:
                asked.append(self.waiting.get(timeout=max(0.0, until - time.monotonic())))
            except queue.Empty:
                break
        return asked


def settle(futures, answers):
    for future, answer in zip(futures, answers, strict=True):
        if future.done():  # nobody waits any longer
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
