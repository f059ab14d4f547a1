"""The file of the policies, and who may fill what in it."""

import re

import pytest

from backstay.errors import ConfigError
from shop.gateway.config import GatewaySettings
from shop.kernel.resilience import FILE, Seconds, policies
from shop.notifications.config import Settings as Notifications
from shop.orders.config import Settings as Orders

PREFIXES = {"payment_": Orders, "smtp_": Notifications, "service_": GatewaySettings}
PLACEHOLDER = re.compile(r"\$\{(\w+):([^}]+)\}")


@pytest.mark.parametrize(("name", "default"), PLACEHOLDER.findall(FILE.read_text()))
def test_each_placeholder_is_a_setting(name, default):
    """It is a validated setting of the service that uses it, with the same default."""
    owner = next(cls for prefix, cls in PREFIXES.items() if name.lower().startswith(prefix))
    value = getattr(owner(), name.lower())

    unit = {"ms": 1000, "s": 1}.get(default.lstrip("0123456789."), 1)
    assert float(default.rstrip("ms")) / unit == value


def test_a_value_that_is_impossible_is_named():
    """What gets past a setting's own check is caught with file, key and what is allowed."""
    with pytest.raises(ConfigError, match=r"payments\.failureRateThreshold: '0' is not a number in \(0, 100\]"):
        policies({"payments"}, {"payment_failure_rate": 0, "payment_wait_open": Seconds(1)}, {"UpstreamError": OSError})
