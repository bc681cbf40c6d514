"""make.py FOLDER

Plays a small database with its connector and writes into FOLDER what a lake is tested with: the capture in two parts
(`part-1.jsonl`, `part-2.jsonl`), and the database's state after each part (`state-<part>/<table>.jsonl`, as
captures/README.md describes it) with the places of the records that nobody can apply (`dead_letters.json`). Gives the same
files each time. Shares no code with the runtime.
"""
import copy, json, pathlib, sys

PREFIX, DATABASE, PARTITIONS = "old", "shop", 2
START_MS = 1_790_000_000_000


class Database:
    def __init__(self):
        self.tables, self.events, self.offsets, self.bad = {}, [], {}, []
        self.pos, self.ts, self.gone = 100, START_MS, None

    def send(self, topic, partition, key, value):
        offset = self.offsets.get((topic, partition), 0)
        self.offsets[topic, partition] = offset + 1
        text = lambda part: None if part is None else json.dumps(part, separators=(",", ":"))
        self.events.append({"topic": topic, "partition": partition, "offset": offset, "ts_type": "create", "ts": self.ts,
                            "headers": [], "key": text(key), "value": text(value)})
        return {"topic": topic, "partition": partition, "offset": offset}

    def send_again(self, events):
        """a connector that starts again sends what it had sent since it last told how far it was"""
        for event in events:
            value, key = (event[part] and json.loads(event[part]) for part in ("value", "key"))
            self.send(event["topic"], event["partition"], key, value)

    def source(self, table):
        return {"version": "3.6.1.Final", "connector": "mysql", "name": PREFIX, "ts_ms": self.ts, "snapshot": "false",
                "db": DATABASE, "table": table, "server_id": 101, "gtid": None, "file": "binlog.000002", "pos": self.pos,
                "row": 0}

    def step(self):
        self.pos, self.ts = self.pos + 100, self.ts + 10

    def tell(self, ddl, table, kind):
        """a statement, on the topic of schema changes"""
        self.step()
        change = []
        if kind:
            of = self.tables[table]
            columns = [{"name": name, "typeName": name_of(kind), "length": length(kind), "scale": scale(kind), "position": at + 1,
                        "optional": name not in of["key"], "defaultValueExpression": None, "enumValues": None}
                       for at, (name, kind) in enumerate(of["columns"].items())]
            change = [{"type": kind, "id": f'"{DATABASE}"."{table}"', "table": {
                "defaultCharsetName": "utf8mb4", "primaryKeyColumnNames": of["key"], "columns": columns}}]
        self.send(PREFIX, 0, {"databaseName": DATABASE},
                  {"source": self.source(table), "ts_ms": self.ts, "databaseName": DATABASE, "schemaName": None, "ddl": ddl,
                   "tableChanges": change})

    def create(self, table, key, **columns):
        self.tables[table] = {"key": key, "columns": columns, "rows": []}
        body = ", ".join([*(f"`{n}` {t}" for n, t in columns.items()), *([f"PRIMARY KEY ({', '.join(key)})"] if key else [])])
        self.tell(f"CREATE TABLE `{table}` ({body})", table, "CREATE")

    def rename_column(self, table, old, new):
        of = self.tables[table]
        kind = of["columns"][old]
        of["columns"] = {new if n == old else n: t for n, t in of["columns"].items()}
        of["rows"] = [{new if n == old else n: v for n, v in row.items()} for row in of["rows"]]
        self.tell(f"ALTER TABLE `{table}` CHANGE `{old}` `{new}` {kind}", table, "ALTER")

    def add_column(self, table, name, kind):
        of = self.tables[table]
        of["columns"] = {**of["columns"], name: kind}
        of["rows"] = [{**row, name: None} for row in of["rows"]]
        self.tell(f"ALTER TABLE `{table}` ADD COLUMN `{name}` {kind} NULL", table, "ALTER")

    def truncate(self, table):
        self.tables[table]["rows"] = []
        self.tell(f"TRUNCATE TABLE `{table}`", table, None)

    def change(self, table, op, before, after):
        self.step()
        row, key = after or before, self.tables[table]["key"]
        partition = sum(map(ord, str([row[n] for n in key] if key else row))) % PARTITIONS
        names = {n: row[n] for n in key} if key else None
        value = {"before": before, "after": after, "source": self.source(table), "op": op, "ts_ms": self.ts}
        self.send(f"{PREFIX}.{DATABASE}.{table}", partition, names, value)
        if op == "d" and key:
            self.send(f"{PREFIX}.{DATABASE}.{table}", partition, names, None)

    def insert(self, table, **row):
        self.tables[table]["rows"].append(row)
        self.change(table, "c", None, copy.copy(row))

    def find(self, table, at):
        """the first row with these values"""
        return next(row for row in self.tables[table]["rows"] if all(row[n] == v for n, v in at.items()))

    def update(self, table, at, **values):
        row = self.find(table, at)
        before = copy.copy(row)
        row.update(values)
        self.change(table, "u", before, copy.copy(row))

    def delete(self, table, **at):
        row = self.find(table, at)
        self.tables[table]["rows"].remove(row)
        self.change(table, "d", row, None)

    def spoil(self, table, at, column):
        """a record that says nothing about the database, as no row has such a value"""
        self.step()
        row = {**self.find(table, at), column: "many"}
        value = {"before": None, "after": row, "source": self.source(table), "op": "u", "ts_ms": self.ts}
        self.bad.append(self.send(f"{PREFIX}.{DATABASE}.{table}", 0, {n: row[n] for n in self.tables[table]["key"]}, value))


def name_of(kind): return kind.partition("(")[0]
def digits(kind): return [int(n) for n in kind.partition("(")[2].rstrip(")").split(",") if n]
def length(kind): return (digits(kind) + [None])[0]
def scale(kind): return (digits(kind) + [None, None])[1]


def first(db):
    db.create("customers", ["id"], id="BIGINT", name="VARCHAR(60)", credit="DECIMAL(10,2)")
    db.create("orders", ["region", "id"], region="VARCHAR(8)", id="INT", amount="DECIMAL(12,2)", count="INT")
    db.create("products", ["id"], id="INT", title="VARCHAR(60)", weight="DOUBLE")
    db.create("carts", ["id"], id="INT", content="VARCHAR(60)")
    db.create("visits", [], session="VARCHAR(12)", page="VARCHAR(60)", seconds="INT")
    for n in range(1, 31):
        db.insert("customers", id=n, name=f"Ånna {n}", credit=f"{n}.50")
        db.insert("orders", region=["north", "south", "west"][n % 3], id=n, amount=f"{n * 10}.00", count=n)
        if n % 2: db.insert("products", id=n, title=f"thing {n}", weight=n / 4)
        if n % 3 == 0: db.insert("carts", id=n, content="old")
        db.insert("visits", session=f"s{n % 4}", page="/", seconds=n % 3)
    db.spoil("orders", {"id": 7}, "count")
    for n in range(1, 31, 3):
        db.update("customers", {"id": n}, credit="0.00")
        db.update("orders", {"id": n}, amount="1.25")
        db.update("visits", {"session": f"s{n % 4}", "seconds": n % 3}, page="/left")
    for n in (4, 5, 22):
        db.delete("customers", id=n)
        db.delete("orders", id=n)
    for n in (0, 1, 2): db.delete("visits", seconds=n)
    db.truncate("carts")
    db.insert("carts", id=3, content="after the truncate")
    db.rename_column("products", "title", "name")
    db.update("products", {"id": 1}, name="renamed thing")
    db.insert("customers", id=4, name="here again", credit=None)


def second(db):
    """what the program of today takes in: every table goes on with rows of before"""
    bad = max(at for at, event in enumerate(db.events) if '"many"' in (event["value"] or ""))
    db.send_again(db.events[bad + 1:])
    for n in range(2, 31, 4):
        if n != 22: db.update("customers", {"id": n}, name=f"new {n}")
        if n != 22: db.update("orders", {"id": n}, count=None)
        db.update("visits", {"session": f"s{n % 4}"}, seconds=99)
    for n in (1, 9, 30):
        db.delete("customers", id=n)
        db.delete("orders", id=n)
    for n in range(40, 46):
        db.insert("customers", id=n, name=f"late {n}", credit="7.00")
        db.insert("orders", region="east", id=n, amount="3.10", count=1)
        db.insert("visits", session="s0", page="/", seconds=0)
    db.delete("visits", seconds=99)
    db.spoil("orders", {"id": 8}, "count")
    db.update("products", {"id": 3}, name="another name")
    db.add_column("products", "colour", "VARCHAR(20)")
    db.update("products", {"id": 5}, colour="red")
    db.delete("products", id=7)
    db.insert("carts", id=6, content="voided")
    db.truncate("carts")
    db.insert("carts", id=9, content="last")
    db.insert("customers", id=5, name="here again", credit="5.00")


def text(value): return None if value is None else str(value)


def keep(db, folder):
    """the state of every table, and the records so far that nobody can apply"""
    folder.mkdir(parents=True, exist_ok=True)
    write = lambda name, lines: (folder / name).write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    for table, of in db.tables.items():
        columns = [{"name": n, "type": t.lower(), "nullable": n not in of["key"], "charset": None, "encoding": "text", "default": None}
                   for n, t in of["columns"].items()]
        meta = {"database": DATABASE, "table": table, "server": "none", "primary_key": of["key"], "rows": len(of["rows"]),
                "columns": columns}
        rows = [{n: text(row[n]) for n in of["columns"]} for row in of["rows"]]
        write(f"{table}.jsonl", [{"_meta": meta}, *sorted(rows, key=json.dumps)])
    write("dead_letters.json", [db.bad])


def main():
    folder, db, done = pathlib.Path(sys.argv[1]), Database(), 0
    for part, statements in ((1, first), (2, second)):
        statements(db)
        keep(db, folder / f"state-{part}")
        lines = [json.dumps(event, ensure_ascii=False) + "\n" for event in db.events[done:]]
        (folder / f"part-{part}.jsonl").write_text("".join(lines))
        done = len(db.events)


if __name__ == "__main__":
    main()
