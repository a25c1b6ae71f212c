"""Which network interface reaches the other hosts.

gloo binds to what the host's own name resolves to. Where that is 127.0.1.1, as Debian has it, no other host
reaches it; the address from which packets leave for the others is the right one.
"""

import ipaddress
import socket

import psutil


def own_address(host, port):
    """The address from which this machine reaches another; nothing is sent.

    Raises:
        OSError: it does not know such a name, or no way there.
    """
    family, kind, _, _, there = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(there)
        return probe.getsockname()[0]


def is_loopback(address):
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def interface_of(address):
    """The name of the interface with that address: "eth0"; None where there is none."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(other.address.partition("%")[0] == address.partition("%")[0] for other in addresses):
            return name
    return None
