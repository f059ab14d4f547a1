"""Reading a shop's history, and what it adds up to."""

from decimal import Decimal
from pathlib import Path

import pytest

from lab.replay import expected
from lab.system import dataset

FILES = {
    "products.csv": "sku,name,category,supplier,unit,price,stock,reorder_level,discontinued\n"
    "A,Tea,Drinks,S,box,1.10,3,1,false\nB,Jam,Spreads,S,jar,2.05,0,0,true\n",
    "customers.csv": "customer,company,contact,address,city,postal_code,country\nX,Xavier Ltd,Xavier,,,,\n",
    "orders.csv": "order,customer,date\n1,X,2012-07-04\n2,X,2012-07-05\n",
    "order_lines.csv": "order,sku,quantity\n1,A,2\n1,B,1\n2,A,5\n",
}


def folder(path: Path, **changed: str) -> Path:
    for name, text in FILES.items():
        (path / name).write_text(changed.get(name.removesuffix(".csv"), text))
    return path


def test_northwind_adds_up() -> None:
    """The project's own copy holds 830 orders, 51,317 units, worth 1,449,367.31."""
    history = dataset.read(dataset.NORTHWIND)
    all_of_it = expected.totals(history, history.orders)

    assert (all_of_it.orders, all_of_it.units, all_of_it.money) == (830, 51_317, Decimal("1449367.31"))
    assert (len(history.products), len(history.customers)) == (77, 91)
    assert sum(product.discontinued for product in history.products.values()) == 8


def test_sums_by_product_and_customer(tmp_path: Path) -> None:
    """Each order counts for its customer, each unit for its product at the files' price."""
    history = dataset.read(folder(tmp_path))
    sums = expected.totals(history, history.orders)

    assert sums.units_by_product == {"A": 7, "B": 1}
    assert sums.money_by_product == {"A": Decimal("7.70"), "B": Decimal("2.05")}
    assert sums.orders_by_customer == {"X": 2}
    assert expected.order_total(history, history.orders[0]) == Decimal("4.25")


def test_enough_stock_is_at_least_what_is_asked_for(tmp_path: Path) -> None:
    """Missing stock is filled up, and more than enough stays."""
    history = dataset.read(folder(tmp_path))

    assert expected.starting_stock(history, enough=True) == {"A": 7, "B": 1}
    assert expected.starting_stock(history, enough=False) == {"A": 3, "B": 0}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"orders": "order,customer,date\n1,Y,2012-07-04\n2,X,2012-07-05\n"}, "customer Y"),
        ({"order_lines": "order,sku,quantity\n1,A,2\n2,C,1\n"}, "product C"),
        ({"order_lines": "order,sku,quantity\n1,A,2\n"}, "order 2 has no lines"),
        ({"order_lines": "order,sku,quantity\n1,A,2\n2,A,1\n9,A,1\n"}, "orders.csv doesn't have: 9"),
        ({"order_lines": "order,sku,quantity\n1,A,two\n"}, "line 2"),
        ({"orders": "number,customer\n1,X\n"}, "line 2"),
    ],
)
def test_an_inconsistent_history_is_refused(tmp_path: Path, changed: dict[str, str], words: str) -> None:
    """The message names what doesn't fit."""
    with pytest.raises(dataset.BadFile, match=words):
        dataset.read(folder(tmp_path, **changed))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A folder without the files says which one is missing."""
    with pytest.raises(dataset.BadFile, match=r"products\.csv isn't there"):
        dataset.read(tmp_path)
