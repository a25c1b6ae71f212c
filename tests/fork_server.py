"""A Python that has imported its libraries already and forks for every process that a test starts.

Importing torch, DeepSpeed and transformers takes 5 CPU-seconds, and a launch of two ranks has four processes.
Here one process imports them once, and a fork of it becomes each new one: arguments, working directory,
environment, streams and exit status are those of a process started afresh. Nothing of this repository is
imported before the fork, so the code that runs is that of the folder it is run from.

python fork_server.py LISTENER      a number of an open file; serves until its standard input ends
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import types

LIBRARIES = """
    torch torch.distributed torch.utils.tensorboard deepspeed deepspeed.launcher.runner
    deepspeed.launcher.launch deepspeed.runtime.zero.stage3 transformers transformers.modeling_utils
    transformers.models.auto.modeling_auto transformers.models.auto.tokenization_auto
    transformers.models.qwen3.modeling_qwen3 transformers.models.bert.modeling_bert tokenizers
    safetensors.torch faiss numpy pandas pyarrow scipy.sparse sklearn.cluster matplotlib.pyplot psutil
""".split()

# What libraries read while they are imported: where one of these differs, a process is started afresh.
READ_BY_IMPORTS = "HF_ TRANSFORMERS_ TORCH_ OMP_ MKL_ OPENBLAS_ DS_ CUDA_ PYTHON LC_".split()
READ_LATER = {
    "PYTHON",
    "PYTHONPATH",
    "PYTHONUNBUFFERED",
    "TORCH_CPP_LOG_LEVEL",
}  # by scripts, become()


class Server:
    """Each connection asks for one process, hears its status, and takes it along when it goes."""

    def __init__(self, listener):
        self.listener = socket.socket(fileno=listener)
        self.watched, self.ready, self.environment = selectors.DefaultSelector(), False, dict(os.environ)
        self.watched.register(self.listener, selectors.EVENT_READ, self.accept)
        self.watched.register(sys.stdin, selectors.EVENT_READ, self.end)

    def next_request(self):
        """What a fork is to become; the server itself never returns."""
        while True:
            for key, _ in self.watched.select():
                if request := key.data(key.fileobj):
                    return request

    def accept(self, listener):
        connection, _ = listener.accept()
        message, streams, *_ = socket.recv_fds(connection, 2**20, 3)
        request = json.loads(message)
        if seen_by_imports(request["environment"]) != seen_by_imports(self.environment):
            connection.send(b"afresh")
            connection.close()
            for stream in streams:
                os.close(stream)
            return None
        if not self.ready:
            import_libraries()
            self.ready = True
        process = os.fork()
        if process == 0:
            os.setpgid(0, 0)
            self.forget()
            connection.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            return request | {"forget": list(self.environment)}
        with contextlib.suppress(OSError):
            os.setpgid(process, process)  # whoever of the two comes first
        for stream in streams:
            os.close(stream)
        ended = os.pidfd_open(process)
        connection.send(str(process).encode())
        self.watched.register(connection, selectors.EVENT_READ, lambda _: self.kill(process, connection))
        self.watched.register(ended, selectors.EVENT_READ, lambda _: self.report(process, ended, connection))

    def report(self, process, ended, connection):
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        self.watched.unregister(ended)
        os.close(ended)
        if connection.fileno() != -1:
            self.watched.unregister(connection)
            with contextlib.suppress(OSError):  # nobody waits any more
                connection.send(str(status).encode())
            connection.close()

    def kill(self, process, connection):
        """Whoever waited is gone, so it was killed: its process goes with it, and what that has started."""
        if connection.fileno() == -1:
            return
        self.watched.unregister(connection)
        connection.close()
        os.killpg(process, signal.SIGKILL)

    def end(self, stdin):
        for key in list(self.watched.get_map().values()):
            if isinstance(key.fileobj, socket.socket) and key.fileobj is not self.listener:
                key.data(key.fileobj)
        os._exit(0)

    def forget(self):
        """In a fork: nothing of the server stays open."""
        for key in list(self.watched.get_map().values()):
            if key.fileobj is not sys.stdin:
                os.close(key.fd)
        self.watched.close()


def seen_by_imports(environment):
    """The part of an environment that libraries read while they are imported."""
    seen = {name: value for name, value in environment.items() if name.startswith(tuple(READ_BY_IMPORTS))}
    if not os.path.exists("/dev/nvidiactl"):  # then these two change nothing
        seen.pop("CUDA_VISIBLE_DEVICES", None)
        if seen.get("DS_ACCELERATOR") == "cpu":
            del seen["DS_ACCELERATOR"]
    return {name: value for name, value in seen.items() if name not in READ_LATER}


def import_libraries():
    os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # as the package does
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a fork would touch, and so copy, every page


def become(request, paths):
    """Run what was asked for as the interpreter's own command line would. Whatever it raises goes on up."""
    os.chdir(request["directory"])
    for name in request["forget"]:
        os.environ.pop(name, None)
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    sys.modules["numpy"].random.seed()  # torch starts from a fixed seed, Python's own random from a new one
    if request["unbuffered"] or os.environ.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)
    sys.executable, kind, (target, *sys.argv) = request["executable"], request["kind"], request["arguments"]
    own = {"module": os.getcwd(), "code": ""}.get(kind, os.path.dirname(os.path.abspath(target)))
    sys.path[:] = [own, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *paths]
    importlib.invalidate_caches()
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if kind == "module":
        sys.argv.insert(0, "-m")
        runpy._run_module_as_main(target)
        return
    sys.argv.insert(0, target if kind == "script" else "-c")
    if kind == "code":
        runpy._run_code(compile(target, "<string>", "exec"), main.__dict__, mod_name="__main__")
    else:
        with open(target, "rb") as file:
            code = compile(file.read(), os.path.abspath(target), "exec")
        runpy._run_code(code, main.__dict__, mod_name="__main__", script_name=os.path.abspath(target))


def end_as(error):
    """Do what the interpreter does when a program is over, but for taking all modules apart (0.4 s).

    Args:
        error: what it ended with, or None.
    """
    status = 0
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        status = error.code or 0
    elif isinstance(error, SystemExit):
        print(error.code, file=sys.stderr)
        status = 1
    elif error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status & 255)


if __name__ == "__main__":
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [path for path in sys.path[1:] if path not in given]
    request, error = Server(int(sys.argv[1])).next_request(), None
    try:
        become(request, paths)
    except KeyboardInterrupt:  # ends a process by that signal, which only the interpreter can
        raise
    except BaseException as raised:
        error = raised
    end_as(error)
