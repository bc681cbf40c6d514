#!/usr/bin/env python3
"""seed.py OUT ROWS [SEED]: write the generator's initial table straight into a Silver Delta table (no Kafka), for the steady-update runs."""
import sys
import pyarrow as pa
from deltalake import write_deltalake

from generate import COLUMNS, Table

out, n, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1
ts, t = pa.timestamp("us", "UTC"), Table(seed, n)
kind = {"int64": pa.int64(), "int32": pa.int32(), "string": pa.string()}
schema = pa.schema([(c, pa.decimal128(12, 2) if c == "amount" else ts if sem else kind[ct]) for c, ct, _, sem in COLUMNS])


def column(name, values):
    if name == "amount":
        return pa.array([f"{v // 100}.{v % 100:02d}" for v in values]).cast(schema.field(name).type)
    return pa.array(values, pa.int64()).cast(ts) if schema.field(name).type == ts else pa.array(values, schema.field(name).type)


for lo in range(1, n + 1, 1_000_000):
    rows = zip(*[t.base(k) for k in range(lo, min(lo + 1_000_000, n + 1))])
    write_deltalake(out, pa.table([column(c[0], v) for c, v in zip(COLUMNS, rows)], schema=schema), mode="append")
