"""`pytest` in this folder: each engine held to the contract that calls rely on."""

import pytest
from my_engines import Beeps, Clerk, Ears


@pytest.mark.parametrize("engine", [Beeps, Ears])
def test_it_keeps_the_contract(engine, check_engine):
    check_engine(engine)


def test_the_clerk_calls_no_tools_but_keeps_the_rest_of_the_contract(check_engine):
    check_engine(Clerk, tools=False)
