"""A FastAPI application that takes parts of Backstay: an outbox, and what surrounds a request.

`application(...)` builds it. Start it with `uvicorn --factory tickets.main:from_environment`.
"""

import os
from uuid import UUID

from fastapi import FastAPI, Request
from pydantic import BaseModel

from backstay import asgi, auth, messaging, outbox
from backstay.db import Database
from backstay.http import HttpClient
from backstay.http.problems import Conflict
from backstay.ids import uuid7


class TicketSold(messaging.Event, topic="tickets", type="ticket.sold", key="ticket_id"):
    """A ticket was sold."""

    ticket_id: UUID
    film: str


class NewTicket(BaseModel):
    """What a customer sends."""

    film: str


class Ticket(BaseModel):
    """What a customer gets."""

    id: UUID
    film: str


def application(db: Database, keys: auth.KeySource, *owned: object) -> FastAPI:
    """Return the application, which owns its database and what else is given."""
    box = outbox.Outbox(db)
    app = FastAPI(lifespan=asgi.lifespan(db, *owned))  # entered in order, left in reverse

    @app.post("/tickets", status_code=201)
    async def buy(new: NewTicket, request: Request) -> Ticket:
        buyer: auth.Principal = request.state.principal
        auth.require(buyer, scope="tickets:write")
        if new.film == "sold out":
            raise Conflict("sold-out", "there are no seats left")
        ticket = Ticket(id=uuid7(), film=new.film)
        async with db.transaction() as tx:  # the ticket and its event: both or neither
            await tx.execute("INSERT INTO tickets VALUES ($1, $2, $3)", ticket.id, buyer.id, ticket.film)
            await box.append(tx, TicketSold(ticket_id=ticket.id, film=ticket.film), version=1)
        return ticket

    # The last one added is the outermost.
    verifier = auth.TokenVerifier("https://auth.example", "tickets", keys)
    app.add_middleware(asgi.Idempotency, db=db)  # a repeated Idempotency-Key gets the first answer
    app.add_middleware(asgi.Identity, verifier=verifier, required=True, public=["/docs", "/openapi.json"])
    app.add_middleware(asgi.ProblemDetails)  # every error is application/problem+json
    app.add_middleware(asgi.Deadlines, limit=5.0)  # x-request-deadline-ms
    app.add_middleware(asgi.LoadShedding, most=200)
    app.add_middleware(asgi.AccessLog, service="tickets")
    app.add_middleware(asgi.Trace)
    return app


def from_environment() -> FastAPI:
    """Return the application with the database and the key set of the environment."""
    http = HttpClient()
    endpoints = auth.FixedEndpoints(os.environ["JWKS_URL"], http, variable="JWKS_URL", check=auth.parse_jwks)
    keys = auth.JwksCache(endpoints.get)
    db = Database("tickets", dsn=os.environ["DATABASE_URL"], migrations="migrations")
    return application(db, keys, http, keys)
