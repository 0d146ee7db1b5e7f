"""Which hosts are this machine and nobody else: `is_loopback`, and `host_of`, by which name an HTTP request means one.

Text alone decides: nothing here is looked up, and nothing dials.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

__all__ = ["host_of", "is_loopback"]


def is_loopback(host: str) -> bool:
    """Whether only this machine can be meant, and only it can reach what listens there.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("[::1]"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_of(header: str) -> str:
    """The name in a Host header, without its port; empty where it is none.

    >>> host_of("edge.example:9100"), host_of("[::1]:9100"), host_of("[")
    ('edge.example', '::1', '')
    """
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
