"""What surrounds an application, as plain ASGI: for FastAPI, Starlette, Litestar, and our own service kit."""
