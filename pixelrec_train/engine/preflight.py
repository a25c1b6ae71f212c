"""One block of evaluation and one checkpoint, tried before hours have gone by: no memory, no room on the disk
or no right to write there is found out now."""

import time

from pixelrec_train import distributed
from pixelrec_train.engine.checkpoint import random_states, restore_random_states, try_to_save
from pixelrec_train.engine.zero import judging
from pixelrec_train.errors import TrainingStopped
from pixelrec_train.run import rehearsal, watchdog

LONG_S = 600  # a run that takes longer is tried without being asked


def preflight(session, evaluators):
    """Try both; the run goes on as if nothing had been. All ranks call it.

    Raises:
        TrainingStopped: a checkpoint cannot be written.
    """
    started, before = time.monotonic(), random_states()
    watchdog.at("preflight")
    with judging(session.engine):
        for evaluator in evaluators:
            with rehearsal.first_block_alone():
                evaluator()
    if problem := try_to_save(session):
        raise TrainingStopped(
            f"no checkpoint can be written to {session.loop.output_dir}: {problem}. It was tried before "
            "hours are spent (--preflight False leaves that out)."
        )
    restore_random_states(before)
    session.engine.train()
    seconds = time.monotonic() - started
    session.log.note(f"preflight: a block of evaluation and a checkpoint, tried in {seconds:.0f} s")


def is_due(session, eta_s):
    """Whether it is time to, asked once in a run; the same on all ranks.

    eta_s: seconds to the end of the run, as rank 0 reckons.
    """
    if session.rehearsed or session.loop.preflight is not None:
        return False
    session.rehearsed = True
    return distributed.from_first_rank(eta_s > LONG_S)
