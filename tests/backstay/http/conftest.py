"""Everything here must be true on asyncio's own loop and on uvloop, which differ in more than speed."""

import asyncio

import uvloop


def pytest_asyncio_loop_factories(config, item):
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
