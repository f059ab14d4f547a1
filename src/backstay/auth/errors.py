"""Errors of checking or obtaining an identity.

AuthError
├── InvalidToken       the bearer token is not acceptable (401)
├── KeysUnavailable    no key set could be fetched yet, so nothing can be checked (503)
├── Forbidden          the principal is known, but may not do this (403)
├── TokenUnavailable   no service token at hand (also a ConnectionError)
└── EndpointsUnavailable  none of the issuer's addresses gave a good answer (also a ConnectionError)
"""

from backstay.errors import BackstayError


class AuthError(BackstayError):
    """An identity could not be checked or obtained."""


class InvalidToken(AuthError):
    """The bearer token is not acceptable, for `reason`, which doesn't repeat the token."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"invalid token: {reason}")
        self.reason = reason


class KeysUnavailable(AuthError):
    """There is no usable key set yet; try again after `retry_after` seconds."""

    def __init__(self, reason: str = "the key set was not fetched yet", *, retry_after: float = 1.0) -> None:
        super().__init__(f"tokens cannot be checked: {reason}")
        self.reason = reason
        self.retry_after = retry_after


class Forbidden(AuthError):
    """The principal lacks the `scope` or the `role` that is needed."""

    def __init__(self, *, scope: str | None = None, role: str | None = None) -> None:
        super().__init__(f"needs scope {scope}" if scope else f"needs role {role}")
        self.scope = scope
        self.role = role


class TokenUnavailable(AuthError, ConnectionError):
    """No service token at hand: the issuer has not answered yet, or not for longer than the last token lived."""


class EndpointsUnavailable(AuthError, ConnectionError):
    """None of the issuer's addresses gave a good answer; the message has a reason for each."""
