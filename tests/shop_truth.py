"""shop_truth.py TRUTH OUT

Applies the rules of the shop modules to the database's own final state, so that check_silver.py can compare Silver
behind modules with it: TRUTH and OUT are folders of one `.jsonl.gz` a table. Writes customers, orders, order_items,
products and customer_interests. Shares no code with the runtime, the SDK or the modules.
"""
import decimal, gzip, json, pathlib, re, sys

source, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])


def customers(row):
    if row["email"] is not None:
        person, at, domain = row["email"].rpartition("@") if "@" in row["email"] else (row["email"], "", "")
        row["email"] = person[:1] + "***" + at + domain
    if row["phone"] is not None:
        digits = re.sub(r"[^0-9]", "", row["phone"])
        plus = row["phone"].strip().startswith("+")
        row["phone"] = None if not digits else "+" + digits if plus else re.sub("^00", "+", digits)
    return [row]


def orders(row):
    row["order_month"] = row["placed_at"] and row["placed_at"][:7]
    return [] if row["status"] == "pending" else [row]


def order_items(row):
    known = row["qty"] is not None and row["unit_price"] is not None
    row["line_total"] = str(int(row["qty"]) * decimal.Decimal(row["unit_price"])) if known else None
    return [row]


def products(row):
    row["sku"] = row["sku"] and row["sku"].strip().upper()
    row["title"] = row["title"] and " ".join(row["title"].split())
    return [row]


def interests(row):
    names = [name for name in (row["interests"] or "").split(",") if name]
    return [{"customer_id": row["customer_id"], "interest": name} for name in names]


def column(name, kind):
    return {"name": name, "type": kind, "nullable": True, "charset": None, "encoding": "text", "default": None}


# Silver table: source table, rule, columns to add, columns to keep (none: all), key
TABLES = {
    "customers": ("customers", customers, [], None, None),
    "orders": ("orders", orders, [column("order_month", "char(7)")], None, None),
    "order_items": ("order_items", order_items, [column("line_total", "decimal(24,2)")], None, None),
    "products": ("products", products, [], None, None),
    "customer_interests": ("customers", interests, [column("interest", "varchar(20)")], ["customer_id"], ["customer_id", "interest"]),
}
out.mkdir(parents=True, exist_ok=True)
for table, (origin, rule, added, kept, key) in TABLES.items():
    with gzip.open(source / f"{origin}.jsonl.gz", "rt", encoding="utf-8") as lines:
        meta, *rows = [json.loads(line) for line in lines]
    meta = meta["_meta"]
    meta["columns"] = [c for c in meta["columns"] if kept is None or c["name"] in kept] + added
    meta["primary_key"] = key or meta["primary_key"]
    made = [new for row in rows for new in rule(dict(row))]
    meta["rows"] = len(made)
    with gzip.open(out / f"{table}.jsonl.gz", "wt", encoding="utf-8") as lines:
        for line in [{"_meta": meta}, *made]:
            print(json.dumps(line), file=lines)
    print(f"{table}: {len(rows)} rows of {origin} become {len(made)}")
