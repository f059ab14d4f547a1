"""`python -m shop.contracts` prints the JSON Schemas of all events, as docs/reference/events.json holds them."""

import json
import sys

from shop.contracts.published import schemas

sys.stdout.write(json.dumps(schemas(), indent=2, sort_keys=True) + "\n")
