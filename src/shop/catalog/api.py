"""HTTP in: the catalog is public to read; admins write it."""

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from backstay.service import (
    TAGGED,
    Answer,
    Conditions,
    FieldError,
    Page,
    Route,
    Unprocessable,
    decode_cursor,
    encode_cursor,
    get,
    patch,
    post,
    put,
    version_tag,
)
from shop.catalog.model import TEXT_LIMIT, Details, Filter, Place, Product, Sort
from shop.catalog.service import Products
from shop.kernel import Money

PAGE = 50  # items of a page unless asked for otherwise
PAGE_LIMIT = 100

Text = Annotated[str, Meta(min_length=1, max_length=TEXT_LIMIT)]
Limit = Annotated[int, Meta(ge=1, le=PAGE_LIMIT)]
Search = Annotated[str, Meta(max_length=TEXT_LIMIT)]


class ProductView(msgspec.Struct, frozen=True, kw_only=True):
    """A product as customers see it."""

    sku: str
    name: str
    category: str
    supplier: str | None
    unit: str | None
    price: Money
    available: bool
    version: int
    created_at: datetime
    updated_at: datetime


class ProductDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is decided about a product; `version` is the one that was read."""

    name: Text
    category: Text
    price: Money
    version: int
    available: bool = True
    supplier: Text | None = None
    unit: Text | None = None


class NewProduct(msgspec.Struct, frozen=True, kw_only=True):
    """A product to add. The sku is 1 to 32 capital letters, digits and inner hyphens."""

    sku: str
    name: Text
    category: Text
    price: Money
    available: bool = True
    supplier: Text | None = None
    unit: Text | None = None


class ProductChange(msgspec.Struct, frozen=True, kw_only=True):
    """Some details of a product; what is left out stays. With `version`, only if that is still the newest."""

    name: Text | UnsetType = UNSET
    category: Text | UnsetType = UNSET
    price: Money | UnsetType = UNSET
    available: bool | UnsetType = UNSET
    supplier: Text | UnsetType | None = UNSET
    unit: Text | UnsetType | None = UNSET
    version: int | None = None

    def of(self, details: Details) -> Details:
        """Those details with this change."""
        given = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not UNSET}
        given.pop("version")
        return replace(details, **given)


def routes(products: Products) -> list[Route]:
    """Return the catalog's routes, below the API's prefix."""

    @get("/products", public=True)
    async def list_products(
        q: Search | None = None,
        category: Search | None = None,
        available: bool | None = None,
        min_price: Decimal | None = None,
        max_price: Decimal | None = None,
        sort: Sort = Sort.SKU,
        limit: Limit = PAGE,
        cursor: str | None = None,
    ) -> Page[ProductView]:
        """List products: filter by category, availability and price, search in name and category, sort, page."""
        wanted = Filter(q=q, category=category, available=available, min_price=min_price, max_price=max_price)
        items, more = await products.page(wanted, sort, after=_place(cursor, sort), limit=limit)
        following = encode_cursor(sort, more.value, more.sku) if more else None
        return Page([_view(product) for product in items], following)

    @get("/products/{sku}", public=True, answers=TAGGED)
    async def find_product(sku: str) -> Answer[ProductView]:
        """Read one product; its ETag is its version."""
        return _answer(await products.find(sku))

    @post("/products", scope="catalog:write", status=201)
    async def create_product(body: NewProduct) -> Answer[ProductView]:
        """Add a product to the catalog."""
        product = await products.create(body.sku, _details(body))
        return _answer(product, status=201, location=f"/api/v1/products/{product.sku}")

    @put("/products/{sku}", scope="catalog:write")
    async def replace_product(sku: str, body: ProductDetails, conditions: Conditions) -> Answer[ProductView]:
        """Replace a product's details, unless they have been changed since."""
        details = _details(body)
        return _answer(await products.change(sku, lambda _: details, version=body.version, conditions=conditions))

    @patch("/products/{sku}", scope="catalog:write")
    async def change_product(sku: str, body: ProductChange, conditions: Conditions) -> Answer[ProductView]:
        """Change some of a product's details."""
        return _answer(await products.change(sku, body.of, version=body.version, conditions=conditions))

    return [list_products, find_product, create_product, replace_product, change_product]


def _place(cursor: str | None, sort: Sort) -> Place | None:
    position = decode_cursor(cursor, Sort, str, str)
    if position is None:
        return None
    made_for, value, sku = position
    place = Place(value, sku)
    if made_for != sort or not place.fits(sort):
        reason = f"made for sort={made_for}; use the `next` of the page before with the same sort"
        raise Unprocessable(errors=[FieldError("/query/cursor", reason)], slug="bad-cursor")
    return place


def _details(body: NewProduct | ProductDetails) -> Details:
    return Details(
        name=body.name,
        category=body.category,
        price=body.price,
        available=body.available,
        supplier=body.supplier,
        unit=body.unit,
    )


def _view(product: Product) -> ProductView:
    details = product.details
    return ProductView(
        sku=product.sku,
        name=details.name,
        category=details.category,
        supplier=details.supplier,
        unit=details.unit,
        price=details.price,
        available=details.available,
        version=product.version,
        created_at=product.created_at,
        updated_at=product.updated_at,
    )


def _answer(product: Product, *, status: int = 200, location: str | None = None) -> Answer[ProductView]:
    headers = {"ETag": version_tag(product.version)}
    if location:
        headers["Location"] = location
    return Answer(_view(product), status, headers)
