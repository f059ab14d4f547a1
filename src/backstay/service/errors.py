"""What calls to other services raise.

BackstayError
├── http.problems.Problem     every error that a service answers with
└── ServiceCallError          what calls to other services raise
    ├── UpstreamError         they answered 5xx, or nonsense
    └── UpstreamRefused       they answered 4xx
"""

from backstay.errors import BackstayError


class ServiceCallError(BackstayError):
    """A call to another service gave no good answer."""

    def __init__(self, service: str, status: int, problem: dict[str, object] | None = None) -> None:
        self.service = service
        self.status = status
        self.problem = problem or {}
        self.do_not_retry = False  # the service sheds load: a repetition makes it worse
        self.retry_after = 0.0  # seconds that the service asks to wait
        said = self.problem.get("detail") or self.problem.get("title") or "no details"
        super().__init__(f"{service} answered {status}: {said}")

    @property
    def slug(self) -> str:
        """The last part of the problem's type; empty if they sent none."""
        return str(self.problem.get("type") or "").rpartition(":")[2]


class UpstreamError(ServiceCallError):
    """The other service answered 5xx, or something that can't be read: it may do better later."""

    transient = True
    """The same request may succeed later."""


class UpstreamRefused(ServiceCallError):
    """The other service answered 4xx: the same request will be refused again."""


__all__ = ["ServiceCallError", "UpstreamError", "UpstreamRefused"]
