"""Exception classes of Java as exception types of Python, with regard to Java's hierarchy.

Python's `TimeoutError` is an `OSError`; Java's `TimeoutException` is no `IOException`, and neither is a
`RuntimeException`. A class that excludes others says so in `isinstance`, which is how policies compare.
"""

import socket
from typing import Any


class _Excluding(type):
    """The type of an exception class whose instances are those of its base, without those of some others."""

    excluded: tuple[type[BaseException], ...] = ()

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.__mro__[1]) and not isinstance(instance, cls.excluded)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return subclass is cls or (issubclass(subclass, cls.__mro__[1]) and not issubclass(subclass, cls.excluded))


class JavaIOException(OSError, metaclass=_Excluding):
    """`java.io.IOException`: every OSError that is no time-out."""

    excluded = (TimeoutError,)


class JavaRuntimeException(Exception, metaclass=_Excluding):
    """`java.lang.RuntimeException`: every Exception that is neither an I/O error nor a time-out."""

    excluded = (OSError,)


JAVA_ERRORS: dict[str, type[BaseException]] = {
    "java.lang.Throwable": BaseException,
    "java.lang.Exception": Exception,
    "java.lang.RuntimeException": JavaRuntimeException,
    "java.lang.IllegalArgumentException": ValueError,
    "java.io.IOException": JavaIOException,
    "java.net.ConnectException": ConnectionError,
    "java.net.SocketException": ConnectionError,
    "java.net.SocketTimeoutException": TimeoutError,
    "java.net.http.HttpTimeoutException": TimeoutError,
    "java.net.UnknownHostException": socket.gaierror,
    "java.util.concurrent.TimeoutException": TimeoutError,
}
"""Those that are known without `errors=`."""

__all__ = ["JAVA_ERRORS", "JavaIOException", "JavaRuntimeException"]
