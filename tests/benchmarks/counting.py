"""What a Redis server counts: commands, reads and memory."""

from __future__ import annotations

from tests.servers import RedisServer

__all__ = ["calls", "comparisons", "reads", "used_memory"]

_OUR_OWN = {"info", "config|resetstat", "config", "memory|usage", "memory", "scan", "hello", "client|setinfo", "client"}


def calls(server: RedisServer) -> dict[str, int]:
    """Return the number of runs of each command since CONFIG RESETSTAT, except the benchmark's own commands."""
    found: dict[str, int] = {}
    for line in bytes(server.command("INFO", "commandstats")).decode().splitlines():
        name, _, facts = line.removeprefix("cmdstat_").partition(":")
        if facts and name not in _OUR_OWN:
            found[name] = int(facts.partition("calls=")[2].partition(",")[0])
    return found


def comparisons(commands: dict[str, int]) -> int:
    """Return how many tokens were compared with Redis, from what `calls` returned while nothing was stored.

    Each is one GETRANGE. A heartbeat runs one, too, with a SET; a read of the epoch marker two, with a SET and a PTTL.
    """
    return commands.get("getrange", 0) - commands.get("set", 0) - commands.get("pttl", 0)


def reads(server: RedisServer) -> int:
    """Return the number of reads from connections: one per round trip of one caller."""
    stats = bytes(server.command("INFO", "stats")).decode()
    return int(stats.partition("total_reads_processed:")[2].partition("\r")[0])


def used_memory(server: RedisServer) -> int:
    """Return the bytes that the server has allocated."""
    return int(bytes(server.command("INFO", "memory")).partition(b"used_memory:")[2].partition(b"\r")[0])
