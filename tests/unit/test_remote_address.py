"""Addresses of boards: what is one, and what is said of everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.errors import ConfigError
from edgeslim.exporter.remote import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ssh://orin", Address(host="orin")),
        ("ssh://orin/", Address(host="orin")),
        ("SSH://camera@orin.local", Address(host="orin.local", user="camera")),
        ("ssh://camera@10.0.0.7:2222", Address(host="10.0.0.7", user="camera", port=2222)),
        ("ssh://[fd00::2]", Address(host="fd00::2")),
        ("ssh://[fe80::1%25eth0]", Address(host="fe80::1%eth0")),
        ("ssh://[fe80::1%25]", Address(host="fe80::1%25")),
        ("ssh://camera@[fe80::1%eth0]:22", Address(host="fe80::1%eth0", user="camera", port=22)),
    ],
)
def test_an_address(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("orin", "does not start with ssh://"),
        ("camera@orin", "does not start with ssh://"),
        ("http://orin", "does not start with ssh://"),
        ("ssh://", "host ''"),
        ("ssh://@orin", "no user before it"),
        ("ssh://camera@", "host ''"),
        ("ssh://orin:", "port ''"),
        ("ssh://orin:ssh", "port 'ssh'"),
        ("ssh://orin:0", "port 0"),
        ("ssh://orin:65536", "port 65536"),
        ("ssh://orin:" + "9" * 10_000, "port 65536"),
        ("ssh://fd00::2", "without brackets"),
        ("ssh://[fd00::2", "brackets"),
        ("ssh://[orin]", "brackets"),
        ("ssh://[fd00::zz]", "neither a name nor an IP address"),
        ("ssh://[fe80::1%$(reboot)]", "neither a name nor an IP address"),
        ("ssh://[fe80::1%\x1b[2J]", "brackets"),
        ("ssh://cam%65ra@orin", "no plain user name"),
        ("ssh://a@b@orin", "no plain user name"),
        ("ssh://orin/home/camera", "--remote-dir"),
        ("ssh://orin?port=3", "more than a host"),
        ("ssh://-oProxyCommand=reboot", "neither a name nor an IP address"),
        ("ssh://-l@orin", "no plain user name"),
        ("ssh://or in", "neither a name nor an IP address"),
        ("ssh://orin;reboot", "neither a name nor an IP address"),
        ("ssh://a\nb@orin", "no plain user name"),
    ],
)
def test_what_is_no_address(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert said in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "ssh://camera:hunter2@orin",
        "ssh://camera:hunter2/x@orin",
        "ssh://camera:hunter2#x@orin",
        "ssh://camera:hunter2@x@orin",
        "http://camera:hunter2@orin",
        "camera:hunter2@orin",
    ],
)
def test_a_password_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError, match="keys only") as caught:
        parse_address(text)
    assert "hunter2" not in str(caught.value)


def test_a_line_to_copy_is_one_word_for_a_shell() -> None:
    assert Address(host="orin", user="a$b", port=22).ssh_arguments == "-p 22 'a$b@orin'"


@given(
    host=st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True),
    user=st.none() | st.from_regex(r"[a-z_][a-z0-9_-]{0,15}", fullmatch=True),
    port=st.none() | st.integers(1, 65535),
)
def test_an_address_survives_being_written(host: str, user: str | None, port: int | None) -> None:
    address = Address(host=host, user=user, port=port)
    assert parse_address(str(address)) == address


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = parse_address("ssh://" + text)
    except ConfigError:
        return
    assert parse_address(str(address)) == address
