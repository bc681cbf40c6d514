#!/usr/bin/env python3
"""The online store at work, in MySQL.

    shop.py ping                                                ends with 0 when the database answers
    shop.py load SCRIPT                                         runs an SQL script on an empty database, else nothing
    shop.py run [--transactions N] [--rate N] [--seed N]        works for N transactions, N a second (0: as fast as it goes)

One seed gives the same statements on the same database. A transaction is what people do in a shop: orders with their items
and payments, parcels that come back, carts that fill and empty, reviews that are changed, and the rarer things that break
pipelines: keys that change, rows deleted and made again in one transaction, and work that is rolled back.
"""

import argparse
import os
import random
import sys
import time

import pymysql

WORDS = "amber birch cedar delta ember fjord grove heath ivory jade karst linen maple north ocean pearl quartz".split()
ODD = ["Zoë Łukasz", "李 小龙", "O'Brien", 'say "hi"', "tab\there", "line\nbreak", "👟 sale", "back\\slash", ""]
CITIES = [("Oslo", None, "0150", "Norway"), ("Łódź", "Łódzkie", "90-001", "Poland"), ("Springfield", "IL", "62701", "USA")]
KEYS = {
    "Sellers": "SellerID", "Customers": "CustomerID", "ProductCategories": "CategoryID", "Products": "ProductID",
    "Orders": "OrderID", "Reasons": "ReasonID", "OrderItems": "OrderItemID", "ShoppingCarts": "CartID",
    "CartItems": "CartItemID", "Payments": "PaymentID", "Reviews": "ReviewID", "Addresses": "AddressID",
    "Inventory": "InventoryID",
}  # fmt: skip
ORDERED, SHIPPED, DELIVERED, RETURNED, CANCELLED = 1, 2, 3, 4, 5


def connect(database="online_store"):
    home = os.environ.get("LODE_STACK") or os.path.join(
        os.environ.get("LODE_CACHE", os.path.expanduser("~/.cache/lodestream")), "stack", "home"
    )
    with open(os.path.join(home, "secret")) as secret:
        return pymysql.connect(
            host="127.0.0.1", port=int(os.environ.get("STACK_MYSQL_PORT", "23306")), user="shop", password=secret.read(),
            database=database, charset="utf8mb4", init_command="SET time_zone = '+00:00'",
        )  # fmt: skip


def load(script):
    with connect(None) as database, database.cursor() as cursor, open(script) as text:
        cursor.execute("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'online_store'")
        if cursor.fetchone()[0]:
            return
        lines = [line for line in text if not line.lstrip().startswith("--")]
        for statement in "".join(lines).split(";\n"):
            if statement.strip():
                cursor.execute(statement)
        database.commit()


class Shop:
    """The keys that are there, and what is done with them. A rolled back transaction leaves them as they were."""

    def __init__(self, database, seed):
        self.database, self.cursor, self.random = database, database.cursor(), random.Random(seed)
        self.keys = {table: [] for table in KEYS}
        for table, key in KEYS.items():
            self.cursor.execute(f"SELECT {key} FROM {table} ORDER BY {key}")
            self.keys[table] = [row[0] for row in self.cursor.fetchall()]
        # A changed key is negative: AUTO_INCREMENT goes on from the greatest key there is.
        self.moved = min(0, *self.keys["Reviews"], 0)

    # --- rows

    def insert(self, table, **values):
        names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
        self.cursor.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values()))
        key = values.get(KEYS[table], self.cursor.lastrowid)
        self.keys[table].append(key)
        return key

    def update(self, table, key, **values):
        sets = ", ".join(f"{name} = %s" for name in values)
        self.cursor.execute(f"UPDATE {table} SET {sets} WHERE {KEYS[table]} = %s", [*values.values(), key])

    def delete(self, table, key):
        self.cursor.execute(f"DELETE FROM {table} WHERE {KEYS[table]} = %s", [key])
        self.keys[table].remove(key)

    def any(self, table):
        return self.random.choice(self.keys[table])

    def text(self):
        if self.random.random() < 0.1:
            return self.random.choice(ODD)
        return " ".join(self.random.choices(WORDS, k=2))

    def cents(self, most):
        return f"{self.random.randint(1, most) / 100:.2f}"

    # --- what people do

    def person(self, table):
        phone = None if self.random.random() < 0.2 else f"+47{self.random.randint(10**7, 10**8 - 1)}"
        return self.insert(table, Name=self.text(), Email=f"{self.random.choice(WORDS)}@example.org", PhoneNumber=phone)

    def seller(self):
        self.person("Sellers")

    def customer(self):
        customer = self.person("Customers")
        self.insert("ShoppingCarts", CustomerID=customer)
        city, state, code, country = self.random.choice(CITIES)
        self.insert(
            "Addresses", CustomerID=customer, AddressLine=self.text(), City=city, State=state, ZipCode=code,
            Country=country, IsBillingAddress=self.random.random() < 0.5, IsShippingAddress=True,
        )  # fmt: skip

    def category(self):
        self.insert("ProductCategories", CategoryName=self.text(), CategoryDescription=None)

    def product(self):
        product = self.insert(
            "Products", Name=self.text(), Description=self.text() * self.random.randint(0, 40), Price=self.cents(10**6),
            Cost=self.cents(10**5), CategoryID=self.any("ProductCategories"), SellerID=self.any("Sellers"),
        )  # fmt: skip
        self.insert("Inventory", InventoryName=self.text(), ProductID=product, QuantityInStock=100, ReorderThreshold=10)

    def order(self):
        order = self.insert(
            "Orders", OrderNumber=f"N{self.random.getrandbits(40):x}", TotalAmount="0.00", StatusID=ORDERED,
            CustomerID=self.any("Customers"),
        )  # fmt: skip
        for _ in range(self.random.randint(1, 4)):
            product, quantity = self.any("Products"), self.random.randint(1, 5)
            price = self.cents(10**6)
            self.insert("OrderItems", OrderID=order, ProductID=product, Quantity=quantity, CurrentPrice=price)
            self.cursor.execute("UPDATE Orders SET TotalAmount = TotalAmount + %s * %s WHERE OrderID = %s", (price, quantity, order))
            self.cursor.execute("UPDATE Inventory SET QuantityInStock = QuantityInStock - %s WHERE ProductID = %s", (quantity, product))
        self.cursor.execute(
            "INSERT INTO Payments (OrderID, PaymentMethodID, Amount) SELECT OrderID, %s, TotalAmount FROM Orders WHERE OrderID = %s",
            (self.random.randint(1, 5), order),
        )
        self.keys["Payments"].append(self.cursor.lastrowid)

    def parcel(self):
        order = self.any("Orders")
        status = self.random.choice([SHIPPED, DELIVERED, RETURNED, CANCELLED])
        self.update("Orders", order, StatusID=status)
        if status in (RETURNED, CANCELLED):
            kind = "Return" if status == RETURNED else "Cancellation"
            self.insert("Reasons", OrderID=order, ReasonType=kind, ReasonDescription=self.text())

    def cart(self):
        full = self.keys["CartItems"]
        if full and self.random.random() < 0.3:
            for _ in range(min(len(full), self.random.randint(1, 2))):
                self.delete("CartItems", self.random.choice(full))
        else:
            self.insert("CartItems", CartID=self.any("ShoppingCarts"), ProductID=self.any("Products"), Quantity=self.random.randint(1, 9))

    def review(self):
        if self.keys["Reviews"] and self.random.random() < 0.5:
            review = self.any("Reviews")
            if self.random.random() < 0.3:
                self.delete("Reviews", review)
            else:
                for rating in self.random.sample(range(1, 6), 3):
                    self.update("Reviews", review, Rating=rating, Comment=self.text())
        else:
            self.insert("Reviews", ProductID=self.any("Products"), CustomerID=self.any("Customers"), Rating=self.random.randint(1, 5), Comment=self.text())

    def price(self):
        self.update("Products", self.any("Products"), Price=self.cents(10**6), Cost=self.cents(10**5))

    def relocation(self):
        city, state, code, country = self.random.choice(CITIES)
        self.update("Addresses", self.any("Addresses"), City=city, State=state, ZipCode=code, Country=country, IsBillingAddress=self.random.random() < 0.5)

    def moved_key(self):
        if self.keys["Reviews"]:
            review, self.moved = self.any("Reviews"), self.moved - 1
            self.update("Reviews", review, ReviewID=self.moved)
            self.keys["Reviews"][self.keys["Reviews"].index(review)] = self.moved

    def made_again(self):
        if self.keys["CartItems"]:
            item = self.any("CartItems")
            self.delete("CartItems", item)
            self.insert("CartItems", CartItemID=item, CartID=self.any("ShoppingCarts"), ProductID=self.any("Products"), Quantity=1)

    def regret(self):
        before = {table: list(keys) for table, keys in self.keys.items()}
        self.order()
        self.price()
        self.database.rollback()
        self.keys = before

    CHANCES = {
        order: 30, parcel: 20, cart: 18, review: 14, price: 6, relocation: 4, customer: 4, product: 3, moved_key: 3,
        made_again: 3, regret: 3, seller: 1, category: 1,
    }  # fmt: skip

    def open(self):
        """The first rows of a shop, in one transaction."""
        for deed, times in [(self.seller, 20), (self.customer, 60), (self.category, 10), (self.product, 80)]:
            for _ in range(times):
                deed()
        self.database.commit()

    def work(self, transactions, rate):
        deeds, chances = list(self.CHANCES), list(self.CHANCES.values())
        if not self.keys["Products"]:
            self.open()
        # Parcels and the like need something to be about.
        while not self.keys["Orders"]:
            self.order()
        self.database.commit()
        begun = time.monotonic()
        for done in range(transactions):
            if rate:
                time.sleep(max(0.0, begun + done / rate - time.monotonic()))
            self.random.choices(deeds, chances)[0](self)
            self.database.commit()


def main():
    parser = argparse.ArgumentParser(description="the online store at work")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("ping")
    commands.add_parser("load").add_argument("script")
    run = commands.add_parser("run")
    run.add_argument("--transactions", type=int, default=sys.maxsize)
    run.add_argument("--rate", type=float, default=20.0)
    run.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.command == "ping":
        connect(None).close()
    elif arguments.command == "load":
        load(arguments.script)
    else:
        with connect() as database:
            Shop(database, arguments.seed).work(arguments.transactions, arguments.rate)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
    except pymysql.MySQLError as error:
        sys.exit(f"shop: {error}")
