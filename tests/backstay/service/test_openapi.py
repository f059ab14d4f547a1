"""The OpenAPI document: each answer of a route with the body that it has."""

import json
from typing import Any

import msgspec

from backstay.service import Answer, post
from backstay.service.openapi import openapi


class Done(msgspec.Struct):
    """It is done."""

    number: int


class Pending(msgspec.Struct):
    """It waits."""

    since: str


async def settle() -> Answer[Done] | Answer[Pending]:
    """Settle it."""
    raise NotImplementedError


def bodies(**options: Any) -> dict[str, Any]:
    """Return the schema of each good answer."""
    document = json.loads(openapi("orders", "1", [post("/orders", **options)(settle)]))
    responses = document["paths"]["/orders"]["post"]["responses"]
    return {
        status: answer["content"]["application/json"]["schema"]
        for status, answer in responses.items()
        if int(status) < 400
    }


DONE, PENDING = ({"$ref": f"#/components/schemas/{name}"} for name in ("Done", "Pending"))


def test_each_answer_has_its_own_body() -> None:
    """A type that one answer names is not the usual one's; JSON can't tell the two apart, so the document must."""
    answers = {202: (Pending, "It settles later"), 402: "Declined"}

    assert bodies(status=201, answers=answers) == {"201": DONE, "202": PENDING}
