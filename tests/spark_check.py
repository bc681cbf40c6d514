#!/usr/bin/env python3
"""spark_check.py JARS SILVER TRUTH [what check_silver.py takes besides]

check_silver.py's comparison of Silver tables with the database's own final state, read by Spark with Delta instead of Polars.
"""
import glob, os, re, sys

os.environ.setdefault("TZ", "UTC")
from pyspark.sql import SparkSession

import check_silver

jars = sys.argv[1]

spark = (
    SparkSession.builder.master("local[2]")
    .appName("spark_check")
    .config("spark.jars", ",".join(sorted(glob.glob(os.path.join(jars, "*.jar")))))
    .config("spark.driver.memory", "2g")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.sql.shuffle.partitions", "2")
    # fifty by default: made for logs of terabytes
    .config("spark.databricks.delta.snapshotPartitions", "1")
    .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("ERROR")


def silver(folder, columns):
    frame = spark.read.format("delta").load(os.path.abspath(folder))
    names = {}
    for column in columns:
        safe = re.sub(r"[ ,;{}()\n\t=]", "_", column["name"])
        names[column["name"]] = next((n for n in (column["name"], safe) if n in frame.columns), None)
    absent = [name for name, found in names.items() if found is None]
    surplus = [n for n in frame.columns if not n.startswith("_") and n not in names.values()]
    plain = lambda value: bytes(value) if isinstance(value, bytearray) else value
    rows = [
        {name: (plain(row[found]) if found else None) for name, found in names.items()}
        for row in (r.asDict() for r in frame.collect())
    ]
    return rows, absent, surplus


check_silver.silver = silver
sys.argv = [check_silver.__file__, *sys.argv[2:]]
code = check_silver.main()
spark.stop()
sys.exit(code)
