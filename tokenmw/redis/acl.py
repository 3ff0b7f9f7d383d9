"""What an ACL of Redis must allow, in one list, so that the advice of a log line is complete at the first time."""

from __future__ import annotations

from typing import Final

__all__ = ["ACL_RULES", "CATEGORIES"]

# Commands, and the category in which Redis and Valkey have each. The last three are for hints, the two before them for
# clusters.
CATEGORIES: Final = {
    "eval": "scripting",
    "evalsha": "scripting",
    "script": "scripting",
    "get": "read",
    "getrange": "read",
    "pttl": "read",
    "set": "write",
    "getex": "write",
    "pexpire": "write",
    "del": "write",
    "time": "fast",
    "info": "dangerous",
    "select": "connection",
    "cluster|slots": "slow",
    "command": "connection",
    "publish": "pubsub",
    "subscribe": "pubsub",
    "ping": "connection",
}
ACL_RULES: Final = " ".join(["~<namespace>:*", "&<namespace>:v1:hints", *(f"+{name}" for name in CATEGORIES)])
