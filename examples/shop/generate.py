"""generate.py FOLDER [--seed N]

Writes the example's capture, FOLDER/events.jsonl.gz: what Debezium's MySQL connector would have written of a small
shop (bare JSON, decimals as strings, three partitions a topic, the schema-change topic included), and in FOLDER/truth
the final rows of every table as the database would print them. All data is made up; the same seed gives the same bytes.

In it: a snapshot, inserts, updates, deletes with their tombstones, a key that is deleted and inserted again in one
transaction, customers who get a new key, and a column that is added on the way.
"""
import argparse, datetime as dt, gzip, json, os, random, zlib

PREFIX, DATABASE, FILE = "demo", "shop", "binlog.000007"
START = 1_767_571_200_000                       # 2026-01-05 00:00 UTC in milliseconds
FIRST = "Ada Bela Chi Dora Emil Finn Gerda Hugo Ines Jon Kaya Luis Mina Noor Otto Pia Quin Rosa Sven Tara".split()
LAST = "Ahn Berg Cruz Dahl Egli Ferro Grau Holm Ito Jung Kern Lund Moss Nagy Okoro Park Quist Roth Silva Tran".split()
GOODS = [("Mug", 9), ("Lamp", 42), ("Desk", 310), ("Chair", 129), ("Notebook", 4), ("Pen", 2), ("Backpack", 75), ("Globe", 58)]
STATUS = ["pending", "paid", "shipped", "delivered", "cancelled"]

# name, type, key columns, columns: name, SQL type, length, scale, nullable, default
BIGINT, INT, TINY = "BIGINT UNSIGNED", "INT UNSIGNED", "TINYINT"
TABLES = {
    "customers": (["customer_id"], [
        ("customer_id", BIGINT, 20, None, False, None), ("email", "VARCHAR", 190, None, False, None),
        ("full_name", "VARCHAR", 120, None, False, None), ("phone", "VARCHAR", 32, None, True, None),
        ("credit_limit", "DECIMAL", 12, 2, False, "0.00"), ("signed_up_at", "DATETIME", 6, None, False, None),
        ("updated_at", "TIMESTAMP", 3, None, False, None)]),
    "orders": (["order_id"], [
        ("order_id", BIGINT, 20, None, False, None), ("customer_id", BIGINT, 20, None, False, None),
        ("status", "ENUM", 1, None, False, "pending"), ("total_amount", "DECIMAL", 12, 2, False, None),
        ("placed_at", "DATETIME", 6, None, False, None), ("updated_at", "TIMESTAMP", 3, None, False, None)]),
    "order_items": (["order_id", "line_no"], [
        ("order_id", BIGINT, 20, None, False, None), ("line_no", INT, 10, None, False, None),
        ("product", "VARCHAR", 60, None, False, None), ("qty", INT, 10, None, False, None),
        ("unit_price", "DECIMAL", 12, 2, False, None)]),
}
NEWSLETTER = ("newsletter", TINY, 1, None, False, "0")
JDBC = {BIGINT: -5, INT: 4, TINY: 5, "VARCHAR": 12, "DECIMAL": 3, "DATETIME": 93, "TIMESTAMP": 2014, "ENUM": 1}


class Shop:
    """The database, its binlog and the connector in one."""

    def __init__(self, seed):
        self.random, self.events, self.offsets = random.Random(seed), [], {}
        self.rows = {name: {} for name in TABLES}
        self.columns = {name: list(columns) for name, (_, columns) in TABLES.items()}
        self.now, self.pos, self.transaction, self.snapshot, self.next_customer, self.next_order = START, 4711, 0, "true", 1, 1

    # the connector

    def put(self, topic, partition, key, value, headers=()):
        offset = self.offsets.get((topic, partition), 0)
        self.offsets[topic, partition] = offset + 1
        dump = lambda v: None if v is None else json.dumps(v, separators=(",", ":"), ensure_ascii=False)
        self.events.append({"topic": topic, "partition": partition, "offset": offset, "ts_type": "create", "ts": self.now + 40,
                            "headers": [list(h) for h in headers], "key": dump(key), "value": dump(value)})

    def source(self, table, row=0):
        live = self.snapshot == "false"
        return {"version": "3.6.1.Final", "connector": "mysql", "name": PREFIX, "ts_ms": self.now, "snapshot": self.snapshot,
                "db": DATABASE, "sequence": None, "ts_us": self.now * 1000, "ts_ns": self.now * 1_000_000, "table": table,
                "server_id": 21 if live else 0, "gtid": None, "file": FILE, "pos": self.pos, "row": row,
                "thread": 9 if live else None, "query": None}

    def ddl(self, text, table=None, kind="CREATE"):
        changes = []
        if table:
            columns = [{"name": n, "jdbcType": JDBC[t], "nativeType": None, "typeName": t, "typeExpression": t,
                        "charsetName": "utf8mb4" if t in ("VARCHAR", "ENUM") else None, "length": length, "scale": scale,
                        "position": i + 1, "optional": null, "autoIncremented": False, "generated": False, "comment": None,
                        "defaultValueExpression": default, "enumValues": [f"'{s}'" for s in STATUS] if t == "ENUM" else None}
                       for i, (n, t, length, scale, null, default) in enumerate(self.columns[table])]
            body = {"defaultCharsetName": "utf8mb4", "primaryKeyColumnNames": TABLES[table][0], "columns": columns, "comment": None}
            changes = [{"type": kind, "id": f'"{DATABASE}"."{table}"', "table": body}]
        self.put(PREFIX, 0, {"databaseName": DATABASE}, {"source": self.source(table), "ts_ms": self.now + 3,
                 "databaseName": DATABASE, "schemaName": None, "ddl": text, "tableChanges": changes})

    def change(self, table, op, before, after, row=0, headers=()):
        image = after or before
        key = {name: image[name] for name in TABLES[table][0]}
        partition = zlib.crc32(json.dumps(key).encode()) % 3
        topic = f"{PREFIX}.{DATABASE}.{table}"
        self.put(topic, partition, key, {"before": before, "after": after, "source": self.source(table, row), "transaction": None,
                 "op": op, "ts_ms": self.now + 20, "ts_us": (self.now + 20) * 1000, "ts_ns": (self.now + 20) * 1_000_000}, headers)
        if op == "d":
            self.put(topic, partition, key, None, headers)

    # the database

    def step(self):
        """a new binlog event"""
        self.now += self.random.randint(20, 4000)
        self.pos += self.random.randint(300, 900)

    def key(self, table, row): return tuple(row[name] for name in TABLES[table][0])

    def write(self, table, row, headers=()):
        self.step()
        key = self.key(table, row)
        before = self.rows[table].get(key)
        self.rows[table][key] = row
        op = "r" if self.snapshot != "false" else "u" if before else "c"
        self.change(table, op, before, row, headers=headers)

    def update(self, table, key, **values):
        stamp = {"updated_at": self.stamp()} if "updated_at" in self.rows[table][key] else {}
        self.write(table, self.rows[table][key] | values | stamp)

    def delete(self, table, key):
        self.step()
        self.change(table, "d", self.rows[table].pop(key), None)

    def rename(self, table, old, new):
        """a key change: one position; the delete of the old key and the create of the new one, each with a header"""
        self.step()
        before = self.rows[table].pop(old)
        names = TABLES[table][0]
        after = before | dict(zip(names, new)) | {"updated_at": self.stamp()}
        self.rows[table][new] = after
        text = lambda key: json.dumps(dict(zip(names, key)), separators=(",", ":"))
        self.change(table, "d", before, None, headers=[("__debezium.newkey", text(new))])
        self.change(table, "c", None, after, headers=[("__debezium.oldkey", text(old))])

    def stamp(self):
        return dt.datetime.fromtimestamp(self.now / 1000, dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.") + f"{self.now % 1000:03}Z"

    # the shop

    def customer(self):
        r, number = self.random, self.next_customer
        self.next_customer += 1
        first, last = r.choice(FIRST), r.choice(LAST)
        phone = r.choice([None, f"+49 {r.randint(30, 999)} {r.randint(10**5, 10**6)}", f"+1 ({r.randint(200, 999)}) 555-{r.randint(1000, 9999)}"])
        row = {"customer_id": number, "email": f"{first}.{last}{number}@example.com".lower(), "full_name": f"{first} {last}",
               "phone": phone, "credit_limit": f"{r.randint(0, 500000) / 100:.2f}", "signed_up_at": self.now * 1000 + r.randint(0, 999),
               "updated_at": self.stamp()}
        if NEWSLETTER in self.columns["customers"]:
            row["newsletter"] = r.randint(0, 1)
        self.write("customers", row)

    def order(self):
        r, number = self.random, self.next_order
        self.next_order += 1
        lines = []
        for line in range(1, r.randint(1, 4) + 1):
            product, price = r.choice(GOODS)
            lines.append({"order_id": number, "line_no": line, "product": product, "qty": r.randint(1, 5), "unit_price": f"{price * r.randint(80, 120) / 100:.2f}"})
        total = sum(line["qty"] * round(float(line["unit_price"]) * 100) for line in lines)
        self.write("orders", {"order_id": number, "customer_id": r.choice(list(self.rows["customers"]))[0], "status": "pending",
                              "total_amount": f"{total / 100:.2f}", "placed_at": self.now * 1000 + r.randint(0, 999), "updated_at": self.stamp()})
        for line in lines:
            self.write("order_items", line)

    def advance(self):
        orders = [k for k, row in self.rows["orders"].items() if row["status"] in STATUS[:3]]
        if orders:
            key = self.random.choice(orders)
            following = STATUS[STATUS.index(self.rows["orders"][key]["status"]) + 1]
            self.update("orders", key, status=self.random.choice([following, following, following, "cancelled"]))

    def drop_order(self):
        key = self.random.choice(list(self.rows["orders"]))
        for item in [k for k in self.rows["order_items"] if k[0] == key[0]]:
            self.delete("order_items", item)
        self.delete("orders", key)

    def live(self):
        r = self.random
        pick = lambda: r.choice(list(self.rows["customers"]))
        for number in range(760):
            if number == 250:
                self.step()
                self.columns["customers"].append(NEWSLETTER)
                for row in self.rows["customers"].values():
                    row["newsletter"] = 0
                self.ddl("ALTER TABLE customers ADD COLUMN newsletter TINYINT(1) NOT NULL DEFAULT 0", "customers", "ALTER")
            if number in (150, 520):
                key = pick()
                self.rename("customers", key, (9000 + key[0],))
                for order in [k for k, row in self.rows["orders"].items() if row["customer_id"] == key[0]]:
                    self.update("orders", order, customer_id=9000 + key[0])
            if number == 300:
                row = self.rows["orders"][r.choice(list(self.rows["orders"]))]
                self.delete("orders", (row["order_id"],))
                self.write("orders", row | {"status": "paid"})
            action = r.choices(["customer", "order", "advance", "contact", "drop"], [5, 14, 45, 20, 4])[0]
            if action == "contact":
                self.update("customers", pick(), credit_limit=f"{r.randint(0, 500000) / 100:.2f}")
            else:
                {"customer": self.customer, "order": self.order, "advance": self.advance, "drop": self.drop_order}[action]()

    def run(self):
        self.ddl("SET character_set_server=utf8mb4, collation_server=utf8mb4_unicode_ci")
        self.ddl(f"CREATE DATABASE `{DATABASE}` CHARSET utf8mb4 COLLATE utf8mb4_unicode_ci")
        self.ddl(f"USE `{DATABASE}`")
        for table in TABLES:
            self.ddl(f"CREATE TABLE `{table}` (…)", table)
        fixed = self.pos
        self.step = lambda: None                 # every row of a snapshot has the snapshot's own position
        for _ in range(120): self.customer()
        for _ in range(160): self.order()
        del self.step
        self.mark_snapshot()
        self.pos, self.snapshot = fixed, "false"
        self.live()

    def mark_snapshot(self):
        """the first and the last row of a snapshot, over all and of each table, say so"""
        rows = {}
        for event in self.events:
            if event["topic"] != PREFIX:
                rows.setdefault(event["topic"], []).append(event)
        everything = [event for table in rows.values() for event in table]
        marks = {}
        for table in rows.values():
            marks[id(table[0])], marks[id(table[-1])] = "first_in_data_collection", "last_in_data_collection"
        marks[id(everything[0])], marks[id(everything[-1])] = "first", "last"
        for event in everything:
            event["value"] = event["value"].replace('"snapshot":"true"', f'"snapshot":"{marks.get(id(event), "true")}"')


def as_printed(value, kind):
    """the server's own text of a value"""
    if value is None: return None
    if kind == "DATETIME":
        whole, micros = divmod(value, 10**6)
        return dt.datetime.fromtimestamp(whole, dt.timezone.utc).strftime("%Y-%m-%d %H:%M:%S.") + f"{micros:06}"
    if kind == "TIMESTAMP": return value.replace("T", " ").rstrip("Z")
    return str(value)


def packed(path, lines):
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as out:
        for line in lines:
            out.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder"); p.add_argument("--seed", type=int, default=7)
    a = p.parse_args()
    shop = Shop(a.seed)
    shop.run()
    os.makedirs(os.path.join(a.folder, "truth"), exist_ok=True)
    packed(os.path.join(a.folder, "events.jsonl.gz"), sorted(shop.events, key=lambda e: (e["topic"], e["partition"], e["offset"])))
    for table, rows in shop.rows.items():
        columns = shop.columns[table]
        form = lambda t, length, scale: t.lower() if t.endswith("UNSIGNED") else f"{t.lower()}({length}{'' if scale is None else f',{scale}'})"
        meta = {"table": table, "primary_key": TABLES[table][0], "rows": len(rows),
                "columns": [{"name": n, "type": form(t, length, scale), "nullable": null, "encoding": "text"} for n, t, length, scale, null, _ in columns]}
        packed(os.path.join(a.folder, "truth", table + ".jsonl.gz"),
               [{"_meta": meta}] + [{n: as_printed(row[n], t) for n, t, *_ in columns} for _, row in sorted(rows.items())])
    print(f"{len(shop.events)} records, rows: " + ", ".join(f"{t} {len(r)}" for t, r in shop.rows.items()))


if __name__ == "__main__":
    main()
