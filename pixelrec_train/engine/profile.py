"""Where the time of a step goes: a trace for the browser, and the dearest operations in the log."""

from contextlib import ExitStack, contextmanager
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, record_function, schedule

from pixelrec_train import distributed

WARM_UP = 3  # micro-batches that allocate, compile and load
ROWS = 15
TRACE = "trace.json"


@contextmanager
def profiling(session):
    """Profile --profile micro-batches on rank 0 while the block trains one epoch; nothing without the flag.

    Writes <output_dir>/trace.json (for https://ui.perfetto.dev) and a table of the top costs into the log.
    """
    engine, log, loop = session.engine, session.log, session.loop
    if not loop.profile or distributed.rank() != 0:
        yield
        return
    gpu, begun, reported = distributed.uses_gpu(), [], []

    def report(profiler):
        reported.append(min(loop.profile, len(begun) - WARM_UP))
        trace = Path(loop.output_dir) / TRACE
        profiler.export_chrome_trace(str(trace))
        by = "self_device_time_total" if gpu else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=by, row_limit=ROWS, max_name_column_width=45)
        log.block(f"top costs of {reported[0]} micro-batches after the third; trace: {trace}\n{table}")

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * gpu
    # A micro-batch begins with a step of the profiler, so the first of its steps is none.
    plan = schedule(wait=2, warmup=WARM_UP - 1, active=loop.profile, repeat=1)
    with ExitStack() as stack:
        profiler = stack.enter_context(profile(activities=activities, schedule=plan, on_trace_ready=report))
        for name, part in engine.module.profiled().items():
            name_in_trace(part, name, stack)

        def begin(*_):
            begun.append(True)
            profiler.step()

        stack.callback(engine.module.register_forward_pre_hook(begin).remove)
        yield
    if not reported:
        log.note(f"--profile: nothing to report, the epoch had not {WARM_UP + 1} micro-batches left")


def name_in_trace(module, name, stack):
    """Until the stack closes, the module's forward passes stand in the trace under this name."""
    running = []

    def enter(*_):
        running.append(record_function(name))
        running[-1].__enter__()

    def leave(*_):
        running.pop().__exit__(None, None, None)

    stack.callback(module.register_forward_pre_hook(enter).remove)
    stack.callback(module.register_forward_hook(leave).remove)
