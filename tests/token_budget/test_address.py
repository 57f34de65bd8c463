"""The address of a ledger on a server: told apart from a file, and refused with a password in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from token_budget.ledger.address import check_address, is_address, whole_name


def test_an_address_is_no_file() -> None:
    assert is_address("postgresql://db.example/ledger") and is_address("Postgres:///?service=ledger")
    assert not any(
        is_address(place) for place in ("ledger.db", "/srv/postgresql", "postgresql:/db", Path("postgresql://db/x"))
    )
    assert whole_name("postgresql://db/x") == "postgresql://db/x"
    assert whole_name("ledger.db") == str(Path.cwd() / "ledger.db")


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:hunter2@db/ledger",
        "postgresql://me:hunter2/x?y@z@db/ledger",
        "postgresql://:hunter2@/ledger",
        "postgresql://db/ledger?password=hunter2",
        "postgresql://db/ledger?sslmode=require&PASSWORD=hunter2",
        "postgresql://db/ledger?pass%77ord=hunter2",
        "postgresql://db/ledger?sslpassword=hunter2",
    ],
)
def test_a_password_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(ValueError, match=r"PGPASSWORD.*PGPASSFILE.*service") as caught:
        check_address(address)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("address", ["mysql://me:hunter2@db/x", "postgresq://db/x", "HTTPS://db/x"])
def test_an_address_of_another_kind_of_server_is_no_file(address: str) -> None:
    assert is_address(address)
    with pytest.raises(
        ValueError, match=r"^expected a file, or an address that begins with postgresql://, got \w+"
    ) as caught:
        check_address(address)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me@db:5432/ledger",
        "postgresql://h1:1,h2:2/ledger",
        "postgresql:///?service=ledger&sslmode=require",
    ],
)
def test_an_address_without_a_password(address: str) -> None:
    check_address(address)
