"""Products in PostgreSQL."""

from backstay.db import Database, Queries, Row, Transaction
from shop.catalog.model import Details, Filter, Place, Product, Sort
from shop.kernel import Money

sql = Queries.load(__package__)

# What each sort orders by, and the type its place in the list is compared as.
_ORDERS = {"sku": ("sku", "text"), "name": ("lower(name)", "text"), "price": ("price", "numeric")}


async def insert(tx: Transaction, product: Product) -> bool:
    """Save a new product; False when its sku is taken."""
    details = product.details
    row = await tx.fetchrow(
        sql.insert_product,
        product.sku,
        details.name,
        details.category,
        details.supplier,
        details.unit,
        details.price.amount,
        details.price.currency,
        details.available,
        product.version,
        product.created_at,
        product.updated_at,
    )
    return row is not None


async def update(tx: Transaction, product: Product) -> None:
    """Save the next version of a locked product."""
    details = product.details
    await tx.execute(
        sql.update_product,
        product.sku,
        details.name,
        details.category,
        details.supplier,
        details.unit,
        details.price.amount,
        details.price.currency,
        details.available,
        product.version,
        product.updated_at,
    )


async def find(db: Database, sku: str) -> Product | None:
    """Return the product as it is now."""
    row = await db.fetchrow(sql.find_product, sku)
    return _product(row) if row else None


async def lock(tx: Transaction, sku: str) -> Product | None:
    """Return the product, held until the transaction ends."""
    row = await tx.fetchrow(sql.lock_product, sku)
    return _product(row) if row else None


async def page(
    db: Database, wanted: Filter, sort: Sort, *, after: Place | None, limit: int
) -> list[tuple[Product, Place]]:
    """Up to `limit` products behind `after`, each with its place in the list."""
    rows = await db.fetch(
        _listing(sort),
        wanted.category,
        wanted.available,
        wanted.min_price,
        wanted.max_price,
        wanted.pattern,
        after.value if after else None,
        after.sku if after else None,
        limit,
    )
    return [(_product(row), Place(row["place"], row["sku"])) for row in rows]


def _listing(sort: Sort) -> str:
    column, kind = _ORDERS[sort.column]
    direction, after = ("DESC", "<") if sort.descending else ("ASC", ">")
    return sql.list_products.format(column=column, type=kind, direction=direction, after=after)


def _product(row: Row) -> Product:
    details = Details(
        name=row["name"],
        category=row["category"],
        supplier=row["supplier"],
        unit=row["unit"],
        price=Money(row["price"], row["currency"]),
        available=row["available"],
    )
    return Product(
        sku=row["sku"],
        details=details,
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
