#!/usr/bin/env python3
"""Where the CPU time of a run goes, by stage, from `perf script` on standard input.

    perf record -F 499 -o FILE -- PROGRAM … && perf script -i FILE -F comm,ip,sym,dso --no-inline | profile.py EVENTS CPU_SECONDS

A sample counts for the first stage whose pattern fits its thread and its innermost function.
"""
import collections
import re
import sys

STAGES = [
    ("source: librdkafka fetches, checks, unpacks", r"^(rdk:|lode-rdk)"),
    ("source: poll, copy into blocks", r"^kafka"),
    ("decode: JSON into typed columns", r"lodestream::decode(?!::peek)|simdutf8"),
    ("bronze: op and source time", r"lodestream::decode::peek"),
    ("bronze and silver: compress (snappy, zstd)", r"snap::compress|ZSTD|HUF_|FSE_|HIST_"),
    ("bronze and silver: encode (parquet)", r"parquet::"),
    ("silver: keyed table", r"lodestream::table|hashbrown|roaring"),
    ("columns: arrow", r"arrow"),
    ("copies", r"mem(move|cpy|set|cmp)"),
    ("allocation", r"malloc|calloc|realloc|cfree|_int_free|\bfree\b|unlink_chunk"),
    ("kernel: pages, files, sockets", r"\[kernel|\[unknown\]|vdso"),
]


def main() -> None:
    events, cpu_seconds = int(sys.argv[1]), float(sys.argv[2])
    counts: collections.Counter[str] = collections.Counter()
    for line in sys.stdin:
        found = re.match(r"\s*(\S.*?)\s+[0-9a-f]+ (.*) \((.*)\)\s*$", line)
        if not found:
            continue
        thread, symbol, library = found.groups()
        if thread.startswith("python"):  # what measures
            continue
        sample = f"{thread} {symbol} {library}"
        stage = next((name for name, pattern in STAGES if re.search(pattern, sample)), "the rest")
        counts[stage] += 1
    total = sum(counts.values())
    if not total:
        sys.exit("profile: no sample; hint: `perf record` needs the right to read the counters")
    each = cpu_seconds * 1e6 / events / total
    for stage, count in counts.most_common():
        print(f"{count * each:7.2f} us  {100 * count / total:5.1f} %  {stage}")


if __name__ == "__main__":
    main()
