"""What the package shows is what it means to show."""

from backstay import messaging


def test_all_is_true() -> None:
    """Every public name is listed once, and exists."""
    assert len(messaging.__all__) == len(set(messaging.__all__))
    assert all(hasattr(messaging, name) for name in messaging.__all__)


def test_every_error_is_a_messaging_error() -> None:
    """One class to catch for all of the package's own errors."""
    errors = [messaging.BrokerUnavailable, messaging.PublishError, messaging.TopicError, messaging.Unreadable]

    assert all(issubclass(error, messaging.MessagingError) for error in errors)
    assert str(messaging.Unreadable()) == "The record cannot be read as an event."
