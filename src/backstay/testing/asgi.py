"""An ASGI application in the test's own process: started and stopped as a server does it, without a socket.

async with started(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
    ...
"""

from backstay.asgi.lifespan import started

__all__ = ["started"]
