#!/usr/bin/env python3
"""Python without Spark: confluent-kafka -> orjson -> pyarrow -> delta-rs, Bronze append and Silver MERGE, batch by batch.

delta_rs.py BOOTSTRAP TOPIC OUT [BATCH]   offsets are kept nowhere: this measures speed, it is no exactly-once pipeline.
LIVE=SECONDS: do not stop at the topic's end, land what has come every EVERY (1) seconds at most, and stop after SECONDS.
"""
import json, os, sys, time
from datetime import datetime, timezone
import orjson, pyarrow as pa
from confluent_kafka import Consumer, KafkaError, OFFSET_BEGINNING, TopicPartition
from deltalake import DeltaTable, write_deltalake

boot, topic, out = sys.argv[1:4]
size = int(sys.argv[4]) if len(sys.argv) > 4 else 100_000
bronze, silver = os.path.join(out, "bronze"), os.path.join(out, "silver")
ts = pa.timestamp("us", "UTC")
TYPES = dict(order_id=pa.int64(), customer_id=pa.int32(), quantity=pa.int32(), amount=pa.decimal128(12, 2), status=pa.string(), country=pa.string(),
             currency=pa.string(), note=pa.string(), coupon=pa.string(), placed_at=ts, paid_at=ts, updated_at=ts)
BRONZE = pa.schema([("key", pa.string()), ("value", pa.string()), ("topic", pa.string()), ("partition", pa.int32()), ("offset", pa.int64()),
                    ("timestamp", ts), ("ingest_date", pa.string())])
c = Consumer({"bootstrap.servers": boot, "group.id": "bench-peer", "enable.auto.commit": False, "enable.partition.eof": True, "fetch.message.max.bytes": 8_388_608})
parts = c.list_topics(topic, 10).topics[topic].partitions
c.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in parts])
DeltaTable.create(silver, pa.schema(list(TYPES.items())), mode="ignore")
merges = []
clock = dict(read=0.0, parse=0.0, bronze=0.0, merge=0.0)


def lap(what, t):
    now = time.time()
    clock[what] += now - t
    return now


def land(msgs):
    t = time.time()
    day = datetime.now(timezone.utc).date().isoformat()
    keys, vals = [m.key() for m in msgs], [m.value() for m in msgs]
    b = pa.table([pa.array(keys, pa.binary()).cast(pa.string()), pa.array(vals, pa.binary()).cast(pa.string()), pa.array([topic] * len(msgs)), pa.array([m.partition() for m in msgs], pa.int32()),
                  pa.array([m.offset() for m in msgs]), pa.array([m.timestamp()[1] * 1000 for m in msgs], pa.int64()).cast(ts), pa.array([day] * len(msgs))], schema=BRONZE)
    write_deltalake(bronze, b, mode="append", partition_by=["ingest_date"])
    t = lap("bronze", t)
    last = {}
    for v in vals:
        if v is not None:
            e = orjson.loads(v)
            s, r = e["source"], e["after"] or e["before"]
            at = (s["file"], s["pos"], s["row"])
            o = last.get(r["order_id"])
            if o is None or at > o[0]:
                last[r["order_id"]] = (at, e["op"], r)
    rows = list(last.values())
    cols = {k: [r[2][k] for r in rows] for k in TYPES}
    arr = [pa.array(v, pa.string()).cast(TYPES[k]) if k == "amount" else pa.array(v, pa.int64()).cast(ts) if TYPES[k] == ts else pa.array(v, TYPES[k]) for k, v in cols.items()]
    src = pa.table(arr + [pa.array([r[1] for r in rows])], names=[*TYPES, "op"])
    t = lap("parse", t)
    set_ = {k: f"s.{k}" for k in TYPES}
    (DeltaTable(silver).merge(src, "t.order_id = s.order_id", source_alias="s", target_alias="t").when_matched_delete("s.op = 'd'")
     .when_matched_update(set_).when_not_matched_insert(set_, "s.op <> 'd'").execute())
    merges.append(round(lap("merge", t) - t, 2))


live, every = float(os.environ.get("LIVE", 0)), float(os.environ.get("EVERY", 1))
t0, n, nb, eof, buf = time.time(), 0, 0, set(), []
while time.time() - t0 < live if live else len(eof) < len(parts):
    t = time.time()
    while len(buf) < size and (time.time() - t < every if live else len(eof) < len(parts)):
        for m in c.consume(min(10_000, size - len(buf)), 0.2):
            if not m.error():
                buf.append(m)
            elif m.error().code() == KafkaError._PARTITION_EOF:
                eof.add(m.partition())
            else:
                sys.exit(str(m.error()))
    lap("read", t)
    if buf:
        land(buf)
        n, nb, buf = n + len(buf), nb + 1, []
s = time.time() - t0
print(json.dumps(dict(rows=n, batches=nb, seconds=round(s, 2), rows_per_s=round(n / s), **{k: round(v, 2) for k, v in clock.items()}, merges=merges[:40])))
