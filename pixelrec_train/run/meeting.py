"""Before ranks compute together they meet in a store at MASTER_ADDR:MASTER_PORT, and say what they bring.

What is wrong on one host is known to all ranks there, and ends them with the sentence of that host.
"""

import hashlib
import json
import os
import time
from datetime import timedelta

import torch.distributed as dist

from pixelrec_train.distributed import ranks_here, uses_gpu
from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import PACKAGE, digested
from pixelrec_train.run import network
from pixelrec_train.run.directory import versions
from pixelrec_train.run.watchdog import process_name

LOOK = 0.1  # seconds between two looks for the others
LATE = 30.0  # seconds that rank 0 stays for those who come late to hear what is wrong
SAME = ("torch", "deepspeed", "transformers", "tokenizers", "numpy")
PROBLEM, HEARD = "problem", "heard"


def meet(problem, minutes):
    """(store, [what each rank says of itself]) when all have come; (None, []) where there is one.

    On several hosts gloo is told the interface they share, unless GLOO_SOCKET_IFNAME says it.

    Args:
        problem: a sentence about why this rank cannot take part, or None.

    Raises:
        InputError: on all ranks, the problem of any; ranks do not come, or their hosts have unequal software.
    """
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if ranks == 1:
        if problem:
            raise InputError(problem)
        return None, []
    try:
        me = introduction()
        store = join(rank, me["address"], minutes)
        if problem is None and (twin := said_before(store, rank, me)):
            problem = f"{twin} and {me['name']} both say that they are rank {rank}. Give each its own RANK."
        if problem:
            store.set(PROBLEM, problem)
        words = all_come(store, ranks, minutes)
        if not problem and (problem := unequal(words)):
            store.set(PROBLEM, problem)
        if problem := problem or said(store, PROBLEM):
            await_hearing(store, rank, ranks)
            raise InputError(problem)
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(not_met(error)) from None
    choose_interface(me, words)
    return store, words


def introduction():
    """What this rank says of itself."""
    me = {"name": process_name(), "address": None}
    if on_several_hosts():
        me["address"] = network.own_address(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        found = versions()
        me["has"] = {name: found.get(name, "none") for name in SAME} | {"pixelrec_train": own_code()}
        me["has"]["kind of device"] = "a GPU" if uses_gpu() else "the CPU"
    return me


def on_several_hosts():
    return ranks_here() < int(os.environ["WORLD_SIZE"])


def own_code():
    """A digest of the package's modules."""
    return digested(hashlib.blake2b(digest_size=4), *sorted(PACKAGE.rglob("*.py"))).hexdigest()


def join(rank, address, minutes):
    """The store that rank 0 holds, or torchrun for it."""
    if address and rank >= ranks_here() and network.is_loopback(address):
        minutes = min(minutes, 1)  # rank 0 is on another host, or has started already
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    holds = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    settings = dict(timeout=timedelta(minutes=minutes), wait_for_workers=False)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun's store remembers those before
    return dist.PrefixStore(f"pixelrec {attempt}", dist.TCPStore(host, port, None, holds, **settings))


def said_before(store, rank, me):
    """The name of another process that has said it is this rank, or None; else it is this one now."""
    word = json.dumps(me)
    kept = store.compare_set(place_of(rank), "", word).decode()
    return None if kept == word else json.loads(kept)["name"]


def place_of(rank):
    return f"came {rank}"


def said(store, key):
    return store.get(key).decode() if store.check([key]) else None


def all_come(store, ranks, minutes):
    """What all say of themselves; fewer where there is a problem."""
    places, ends = [place_of(r) for r in range(ranks)], time.monotonic() + 60 * minutes
    while not store.check(places):
        if store.check([PROBLEM]):
            return []
        if time.monotonic() > ends:
            absent = [r for r in range(ranks) if not store.check([places[r]])]
            names = ", ".join(map(str, absent[:8])) + (" …" if len(absent) > 8 else "")
            raise TimeoutError(f"after {minutes:g} minutes, {len(absent)} have not come: rank {names}.")
        time.sleep(LOOK)
    return [json.loads(word) for word in store.multi_get(places)]


def unequal(words):
    """A sentence where a host has another version of what must be equal, else None."""
    for r, word in enumerate(words):
        for name, version in word.get("has", {}).items():
            if (first := words[0].get("has", {}).get(name, version)) != version:
                what = "other code of" if name == "pixelrec_train" else "another"
                return (
                    f"rank {r} ({word['name']}) has {what} {name} ({version}) than rank 0 "
                    f"({words[0]['name']}: {first}). Every host needs the same, or one they share."
                )
    return None


def await_hearing(store, rank, ranks):
    """Rank 0, which may hold the store, leaves last."""
    count, ends = store.add(HEARD, 1), time.monotonic() + LATE
    while rank == 0 and count < ranks and time.monotonic() < ends:
        time.sleep(LOOK)
        count = store.add(HEARD, 0)


def choose_interface(me, words):
    """That which reaches rank 0's host. Where its own name means itself there: that which reaches another."""
    address = me["address"]
    if address is None or "GLOO_SOCKET_IFNAME" in os.environ:
        return
    if network.is_loopback(address):
        others = (word["address"] for word in words if not network.is_loopback(word["address"]))
        address = network.own_address(next(others, address), 9)
    if not network.is_loopback(address) and (name := network.interface_of(address)):
        os.environ["GLOO_SOCKET_IFNAME"] = name


def not_met(error):
    """A sentence about why the ranks have not come together."""
    host, place = os.environ["MASTER_ADDR"], f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    if "EADDRINUSE" in str(error) or "address already in use" in str(error):
        return (
            f"port {place} is in use by another program, perhaps another run. Choose another "
            f"one: --master_port N in front of the script (MASTER_PORT=N without a launcher)."
        )
    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
        return f"{process_name()} does not know or reach MASTER_ADDR {host}: {first_line(error)}"
    sentence = (
        f"the {os.environ['WORLD_SIZE']} ranks did not meet at {place}: {first_line(error)} All must be "
        f"started at about the same time, and reach that machine."
    )
    return sentence + (of_several_hosts(host) if on_several_hosts() else "")


def of_several_hosts(host):
    address = network.own_address(host, int(os.environ["MASTER_PORT"]))
    trap = f" Here, {host} is this machine itself, {address}." if network.is_loopback(address) else ""
    names = (
        f"{name} ({os.environ.get(name, 'not set')})" for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    )
    return (
        f"{trap} Between the hosts a firewall must let through MASTER_PORT and the ports that the system "
        f"gives; {' and '.join(names)} name the interface that the hosts share."
    )
