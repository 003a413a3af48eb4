"""A stub vendor on a real socket, and our side of it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from realtime.adapters.openai_vendor import OpenAIVendor
from tests.realtime.adapters.asking import settings
from tests.vendors.openai_stub import OpenAIStub


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIStub]:
    with OpenAIStub().serve() as stub:
        yield stub


@pytest.fixture
def stub(server: OpenAIStub) -> OpenAIStub:
    fresh = OpenAIStub()
    url = server.base_url
    vars(server).update(vars(fresh))
    server.base_url = url
    return server


@pytest.fixture
async def vendor(stub: OpenAIStub) -> AsyncIterator[OpenAIVendor]:
    vendor = OpenAIVendor("acme", settings(stub))
    yield vendor
    for user in [None, *vendor._users]:  # a test that failed, or looked at starting only, has left some
        await vendor.close(user)
