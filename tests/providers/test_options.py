from __future__ import annotations

import math
from typing import Any

import pytest

from tokenmw.errors import ConfigurationError
from tokenmw.options import positive_seconds
from tokenmw.providers.options import host_names


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "60", None, [60]])
def test_duration_must_be_a_positive_number(value: object) -> None:
    """The text names the option."""
    with pytest.raises(ConfigurationError, match=r"^P\(refresh_before=…\) must be a positive, finite number"):
        positive_seconds(value, option="P(refresh_before=…)")


@pytest.mark.parametrize("value", [1, 0.5, 1e9])
def test_positive_duration_comes_back(value: float) -> None:
    """Whole or not."""
    assert value == positive_seconds(value, option="o")


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (None, None),
        (["api.example"], {"api.example"}),
        (("API.Example", "b.example"), {"api.example", "b.example"}),
        ({"localhost", "127.0.0.1", "::1"}, {"localhost", "127.0.0.1", "::1"}),
        ((host for host in ["a.example"]), {"a.example"}),
        (["API.Ex\xe4mple", ".ex\xe4mple"], {"api.xn--exmple-cua", ".xn--exmple-cua"}),
        (["2001:DB8::1"], {"2001:db8::1"}),
    ],
)
def test_hosts_become_a_set_in_lower_case(hosts: Any, expected: set[str] | None) -> None:
    """Any iterable will do; None is no restriction."""
    assert expected == host_names(hosts, option="o")


@pytest.mark.parametrize(
    "hosts",
    [
        *("api.example", b"api.example", [], [""], [5], 5, ["https://api.example"], ["api.example:443"]),
        *(
            ["api.example/v1"],
            ["user@api.example"],
            ["[::1]"],
            ["a,b"],
            [".::1"],
            ["."],
            ["xn--\x00"],
            ["a%b"],
            ["*.example"],
            [" api.example"],
            ["a b"],
            [None],
        ),
    ],
)
def test_what_is_no_list_of_host_names_is_refused(hosts: Any) -> None:
    """A lone text would be a list of letters, and the token would go nowhere."""
    with pytest.raises(ConfigurationError, match=r'^P\(hosts=…\) must be a list of host names, such as \["api'):
        host_names(hosts, option="P(hosts=…)")
