"""Stands where an interpreter stands: asks fork_server.py for a process, and ends as that ends.

python -IS fork_client.py SOCKET PYTHON NAME ARGUMENTS…      NAME: python, or a script beside the real PYTHON

What a fork cannot stand for is started afresh: an interpreter with options, or with open files. So is
what AFRESH names and, where ONCE_AFRESH names a folder, what of MAIN has not run before: it may lack an
import that the server has.
"""

import json
import os
import signal
import socket
import sys

MAIN = (
    "deepspeed.launcher.runner",
    "train_pixelrec.py",
    "evaluate_pixelrec.py",
    "train_generative.py",
    "doctor.py",
)
PASSED_ON = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP]


def command_line(name, arguments, python):
    """(kind, [what to run, its arguments…], unbuffered), or None for what the server does not know."""
    unbuffered = bool(arguments) and arguments[0] == "-u"
    arguments = arguments[unbuffered:]
    if not name.startswith("python"):
        return "script", [os.path.join(os.path.dirname(python), name), *arguments], False
    if not arguments:
        return None
    if arguments[0] in ("-m", "-c") and len(arguments) > 1:
        return {"-m": "module", "-c": "code"}[arguments[0]], arguments[1:], unbuffered
    return None if arguments[0].startswith("-") else ("script", arguments, unbuffered)


def has_open_files():
    """Whether whoever started this left it more than three streams, as multiprocessing does."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and os.get_inheritable(int(name)):
                return True
        except OSError:  # that of the listing itself
            pass
    return False


def is_first(kind, words, once):
    """Whether a script or a module of MAIN has not run before; `once` remembers them."""
    names = [word for word in words[:2] if not word.startswith("-")] if kind == "module" else words[:1]
    name = "-".join(map(os.path.basename, names))
    if not name.startswith(MAIN):
        return False
    try:
        os.close(os.open(os.path.join(once, name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def ask(address, request):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    connection.connect(address)
    socket.send_fds(connection, [json.dumps(request).encode()], (0, 1, 2))
    return connection, connection.recv(100)


def main(address, python, name, *arguments):
    command = command_line(name, list(arguments), python)
    script = [] if name.startswith("python") else [os.path.join(os.path.dirname(python), name)]
    afresh = [python, *script, *arguments]
    if command is None or has_open_files():
        os.execv(python, afresh)
    kind, words, unbuffered = command
    once, named = os.environ.get("ONCE_AFRESH"), os.environ.get("AFRESH", "").split()
    if words[0] in named or (once and kind != "code" and is_first(kind, words, once)):
        os.execv(python, afresh)
    request = {
        "kind": kind, "arguments": words, "unbuffered": unbuffered, "directory": os.getcwd(),
        "environment": dict(os.environ), "executable": os.path.join(os.path.dirname(address), "python"),
        "ignored": [number for number in PASSED_ON if signal.getsignal(number) == signal.SIG_IGN],
    }  # fmt: skip
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until it is known whom they are for
    connection, answer = ask(address, request)
    if answer == b"afresh":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        os.execv(python, afresh)
    process = int(answer)
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: os.kill(process, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    status = int(connection.recv(100) or 1)
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
