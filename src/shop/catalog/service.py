"""Use cases of products. State and event are saved in one transaction, the row locked first."""

from collections.abc import Callable, Sequence

from backstay.clock import SYSTEM, Clock
from backstay.db import Database, Transaction
from backstay.outbox import Outbox
from backstay.service import NO_CONDITIONS, Conditions, Conflict, FieldError, NotFound, Unprocessable, version_tag
from shop.catalog import events, store
from shop.catalog.model import Details, Filter, Flaw, Place, Product, Sort, Stale, sku_flaws


class Products:
    """The catalog's use cases."""

    def __init__(self, db: Database, box: Outbox, *, clock: Clock = SYSTEM) -> None:
        self._db = db
        self._box = box
        self._clock = clock

    async def page(
        self, wanted: Filter, sort: Sort, *, after: Place | None, limit: int
    ) -> tuple[list[Product], Place | None]:
        """Up to `limit` products behind `after`, and where the next page starts (None on the last one).

        Raises Unprocessable for a filter that makes no sense.
        """
        _refuse(wanted.flaws())
        found = await store.page(self._db, wanted, sort, after=after, limit=limit + 1)
        more = found[limit - 1][1] if len(found) > limit else None
        return [product for product, _ in found[:limit]], more

    async def find(self, sku: str) -> Product:
        """One product. Raises NotFound."""
        return _known(await store.find(self._db, sku), sku)

    async def create(self, sku: str, details: Details) -> Product:
        """Add a product. Raises Unprocessable with every broken rule, Conflict when the sku is taken."""
        _refuse([*sku_flaws(sku), *details.flaws()])
        product = Product.new(sku, details, now=self._clock.now())
        async with self._db.transaction() as tx:
            if not await store.insert(tx, product):
                raise Conflict("product-exists", f"There is a product {sku} already; change it instead.")
            await self._box.append(tx, events.created(product), version=product.version)
        return product

    async def change(
        self,
        sku: str,
        change: Callable[[Details], Details],
        *,
        version: int | None = None,
        conditions: Conditions = NO_CONDITIONS,
    ) -> Product:
        """Give a product the details that `change` makes of those it has; nothing is published if they are the same.

        Raises NotFound, PreconditionFailed, Unprocessable with every broken rule, and Conflict unless `version` (if
        given) is the newest.
        """
        async with self._db.transaction() as tx:
            product = _known(await store.lock(tx, sku), sku)
            conditions.check(version_tag(product.version))
            changed = self._next(product, change(product.details), version)
            if changed is not product:
                await self._save(tx, changed)
        return changed

    def _next(self, product: Product, details: Details, version: int | None) -> Product:
        _refuse(details.flaws())
        try:
            return product.changed(details, expected=version, now=self._clock.now())
        except Stale as error:
            raise Conflict("stale-version", str(error), version=product.version) from None

    async def _save(self, tx: Transaction, product: Product) -> None:
        await store.update(tx, product)
        await self._box.append(tx, events.updated(product), version=product.version)


def _known(product: Product | None, sku: str) -> Product:
    if product is None:
        raise NotFound(f"There is no product {sku}.")
    return product


def _refuse(flaws: Sequence[Flaw]) -> None:
    if flaws:
        raise Unprocessable(errors=[FieldError(flaw.pointer, flaw.reason) for flaw in flaws])
