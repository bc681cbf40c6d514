#!/usr/bin/env python3
"""run.py LODE: two thousand transactions of the online store through MySQL, Debezium, Kafka and Azurite into Delta tables.

`lode` runs from before the topics exist. While the store works, `lode` is killed, Connect is killed, the broker is
restarted, other instances join and leave, one is frozen until it has lost its tables. Before that a capture goes the same
way from its file. At the end every Silver table equals the database, row by row, and every Bronze table has each offset
once: both read from Azurite by Polars, which shares no code with `lode`. The stack's secret is in nothing that `lode` wrote
or said.

The stack of this test is its own: its ports, its folder. What ran is ended at the end, also after a failure.
"""

import datetime
import decimal
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts/stack"
CAPTURES = ROOT / "tests/captures"
CHECK_SILVER = ROOT / "tests/check_silver.py"
CACHE = Path(os.environ.get("LODE_CACHE", Path.home() / ".cache/lodestream"))
HOME = CACHE / "stack/test"
PORTS = {"MYSQL": 23406, "KAFKA": 29192, "CONTROLLER": 29193, "SASL": 29194, "TLS": 29195, "CONNECT": 28183, "BLOB": 21100}
TOKENS, TOKEN_SECONDS = 21104, 15
TRANSACTIONS, RATE = 500, 40  # of one part; there are four
SLOW_RATE = 8  # of the part in which instances come and go
PASSWORD = '"sasl.username" = "lode"\n"sasl.password" = { env = "STACK_SECRET" }\n'
started = []
os.environ.update({f"STACK_{name}_PORT": str(port) for name, port in PORTS.items()}, LODE_STACK=str(HOME))

sys.path.insert(0, str(SCRIPTS))
import lake  # noqa: E402
import shop  # noqa: E402
import tokens  # noqa: E402

import polars  # noqa: E402
from azure.core.exceptions import ResourceNotFoundError  # noqa: E402


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def script(name, *words):
    subprocess.run([SCRIPTS / name, *words], check=True)


def wait(what, holds, seconds=120, runs=None):
    """Until `holds()`; fails at the deadline, or when the process `runs` has ended."""
    end = time.monotonic() + seconds
    while not holds():
        if runs and runs.poll() is not None:
            sys.exit(f"test-stack: lode ended with {runs.returncode} while waiting for {what}; see {HOME}/lode.log")
        if time.monotonic() > end:
            sys.exit(f"test-stack: {what}: not within {seconds} s")
        time.sleep(0.2)
    say(what)


def begin(command, **how):
    """Starts what `main` ends, should it still run by then."""
    started.append(subprocess.Popen(command, **how))
    return started[-1]


def finish(what, process, seconds):
    """Until the process has ended well."""
    try:
        code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        sys.exit(f"test-stack: {what} has not ended within {seconds} s; see {HOME}/lode.log")
    expect(code == 0, f"{what} ended with {code}; see {HOME}/lode.log")


class Lode:
    """The program under test, in a folder of its own; everything that it says goes to one log."""

    def __init__(self, program):
        self.program, self.log = Path(program).resolve(), (HOME / "lode.log").open("ab")
        self.environment = dict(
            os.environ,
            STACK_SECRET=secret(),
            CLIENT_SECRET=tokens.CLIENT_SECRET,
            AZURE_STORAGE_ACCOUNT_KEY=secret(),
            AZURITE_BLOB_STORAGE_URL=lake.address(),
            RUST_LOG="info,lodestream=debug",
        )
        self.folder = HOME / "pipeline"
        self.folder.mkdir()
        text = (ROOT / "tests/stack/pipeline.toml").read_text()
        plain = '"security.protocol" = "sasl_plaintext"\n"sasl.mechanism" = "PLAIN"\n' + PASSWORD
        tls = f'"security.protocol" = "sasl_ssl"\n"ssl.ca.location" = "{HOME}/conf/broker.crt"\n'
        scram = tls + '"sasl.mechanism" = "SCRAM-SHA-512"\n' + PASSWORD
        token = tls + (
            '"sasl.mechanism" = "OAUTHBEARER"\n"sasl.oauthbearer.method" = "oidc"\n"sasl.oauthbearer.client.id" = "client"\n'
            '"sasl.oauthbearer.client.secret" = { env = "CLIENT_SECRET" }\n'
            f'"sasl.oauthbearer.token.endpoint.url" = "http://127.0.0.1:{TOKENS}/tenant/oauth2/v2.0/token"\n'
        )
        for name, port, options in (("pipeline", "SASL", plain), ("scram", "TLS", scram), ("token", "TLS", token)):
            (self.folder / f"{name}.toml").write_text(text.replace("BROKER_PORT", str(PORTS[port])).replace("# CREDENTIALS\n", options))

    def start(self, *words, file="pipeline.toml", **environment):
        command = [self.program, *words[:1], file, *words[1:]]
        return begin(command, cwd=self.folder, env={**self.environment, **environment}, stdout=self.log, stderr=self.log)

    def query(self, sql):
        command = [self.program, "query", "pipeline.toml", sql, "--csv"]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=self.log, text=True)
        return [line.split(",") for line in done.stdout.splitlines()[1:]]

    def shared_by(self, instances):
        """Whether so many instances run every table, as their reports in the lake say; the newest word of a table counts."""
        names = [name for name in lake.container().list_blob_names() if "/_lode/instances/" in name]
        try:
            reports = [json.loads(lake.container().download_blob(name).readall()) for name in names]
        except ResourceNotFoundError:  # one has just left
            return False
        owners = {}
        for number, report in enumerate(sorted(reports, key=lambda report: report["written_ms"])):
            owners.update({table: number for table, told in report["tables"].items() if told["here"]})
        return len(owners) == 15 and len(set(owners.values())) == instances

    def commits(self):
        """Commits of every table so far."""
        return sum(1 for name in lake.container().list_blob_names() if "/_delta_log/" in name and name.endswith(".json"))


def secret():
    return (HOME / "secret").read_text()


def expect(holds, complaint):
    if not holds:
        sys.exit(f"test-stack: {complaint}")


# --- what is compared


def plain(value):
    """One form for the database's value and for the lake's."""
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, bytes) and len(value) == 1:  # BIT(1)
        return value != b"\0"
    if isinstance(value, decimal.Decimal):
        return str(value)
    return value


def expect_silver_equals_the_database(folder):
    with shop.connect() as database, database.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'online_store' ORDER BY 1")
        tables = [row[0] for row in cursor.fetchall()]
        expect(len(tables) == 15, f"the store has {len(tables)} tables, not fifteen")
        differ = []
        for table in tables:
            cursor.execute(f"SELECT * FROM {table}")
            columns = [column[0] for column in cursor.description]
            there = sorted((tuple(map(plain, row)) for row in cursor.fetchall()), key=repr)
            silver = polars.scan_delta(folder / "silver" / table).select(columns).collect()
            here = sorted((tuple(map(plain, row)) for row in silver.rows()), key=repr)
            same = there == here
            print(f"{'exact ' if same else 'DIFFER'}  {table}: {len(here)} rows of {len(there)}")
            if not same:
                differ.append(table)
                print("  only in the database:", [row for row in there if row not in here][:3])
                print("  only in silver:      ", [row for row in here if row not in there][:3])
        expect(not differ, f"{', '.join(differ)} differ from the database")


def expect_bronze_has_each_offset_once(folder):
    topics = sorted(path.name for path in (folder / "bronze").iterdir())
    for topic in topics:
        places = polars.scan_delta(folder / "bronze" / topic).select("_partition", "_offset").collect()
        for (partition,), offsets in places.group_by("_partition"):
            found = sorted(offsets["_offset"])
            expect(found == list(range(len(found))), f"bronze `{topic}`, partition {partition}: an offset is missing or double")
    say(f"bronze: each offset once in {len(topics)} topics")


def expect_the_secret_nowhere(*places):
    canaries = [secret().encode(), tokens.CLIENT_SECRET.encode()]
    files = [path for place in places for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file()]
    shown = [str(path) for path in files if any(canary in path.read_bytes() for canary in canaries)]
    expect(not shown, f"a secret stands in {', '.join(shown)}")
    say(f"no secret is in any of {len(files)} files")


# --- the course of the test


def replay_a_capture(lode):
    """One capture from its file to Azurite: what the database had is what a reader finds."""
    (lode.folder / "capture.toml").write_text(
        'name = "capture"\nmirror_tables = ["*"]\n'
        f'[source.replay]\nfiles = "{CAPTURES}/open_m_a.events.jsonl.gz"\n'
        '[lake]\nroot = "az://lake/capture"\noptions = { use_emulator = "true" }\n[flush]\nrows = 500\n'
    )
    finish("lode, which takes the capture in,", lode.start("run", "--until-end", file="capture.toml"), 300)
    folder = HOME / "first"
    lake.fetch(folder)
    done = subprocess.run([sys.executable, CHECK_SILVER, folder / "capture/silver", CAPTURES / "truth_mysql"])
    expect(done.returncode == 0, "the capture on Azurite differs from the database")


def work(part, rate=RATE):
    command = [sys.executable, SCRIPTS / "shop.py", "run", "--transactions", str(TRANSACTIONS), "--rate", str(rate), "--seed", str(part)]
    return begin(command)


def share(lode, first, service):
    """Two more instances join by TLS, one with a password, one with tokens that must be renewed; the first of them is
    frozen until it has lost its tables, comes back, and both leave."""
    wait("one instance runs every table", lambda: lode.shared_by(1), runs=first)
    second = lode.start("run", file="scram.toml")
    third = None
    try:
        wait("two instances share the tables", lambda: lode.shared_by(2), runs=second)
        third = lode.start("run", file="token.toml")
        wait("three instances share the tables", lambda: lode.shared_by(3), runs=third)
        second.send_signal(signal.SIGSTOP)
        wait("one is frozen, the others have its tables", lambda: lode.shared_by(2), runs=first)
        before = lode.commits()
        wait("they commit", lambda: lode.commits() > before + 15, runs=first)
        second.send_signal(signal.SIGCONT)
        wait("it comes back, and three share the tables", lambda: lode.shared_by(3), runs=second)
        old, until = len(service.given), time.time() + TOKEN_SECONDS
        wait("tokens were renewed", lambda: time.time() > until and len(service.given) > old, runs=third)
        wait("and three go on sharing", lambda: lode.shared_by(3), runs=third)
        for which, program, left in (("third", third, 2), ("second", second, 1)):
            program.send_signal(signal.SIGTERM)
            finish(f"the {which} instance, on SIGTERM,", program, 60)
            wait(f"the {which} instance left its tables to the others", lambda: lode.shared_by(left), runs=first)
    finally:
        for program in filter(None, (second, third)):
            program.kill()
            program.wait()


def run(lode, service):
    program = lode.start("run")
    try:
        script("register.sh", lode.program)
        wait("the snapshot of an empty store is in Silver", lambda: lode.query('SELECT count(*) FROM silver."OrderStatus"') == [["5"]], runs=program)

        busy = work(1)
        before = lode.commits()
        wait("commits while the store works", lambda: lode.commits() > before + 20, runs=program)
        program.kill()
        program.wait()
        say("lode: kill -9")
        program = lode.start("run")
        finish("the store", busy, 180)

        busy = work(2)
        script("down.sh", "--kill", "connect")
        script("up.sh", "connect")
        finish("the store", busy, 180)

        busy = work(3)
        script("down.sh", "kafka")
        script("up.sh", "kafka")
        finish("the store", busy, 180)

        busy = work(4, SLOW_RATE)
        share(lode, program, service)
        finish("the store", busy, 180)

        with shop.connect() as database, database.cursor() as cursor:
            cursor.execute("INSERT INTO Sellers (Name, Email) VALUES ('the last', 'the-last@example.org')")
            database.commit()
        last = "SELECT count(*) FROM silver.\"Sellers\" WHERE \"Email\" = 'the-last@example.org'"
        wait("the last row is in Silver", lambda: lode.query(last) == [["1"]], runs=program)
        program.send_signal(signal.SIGTERM)
        finish("lode, on SIGTERM,", program, 60)
        # Debezium writes in the database's order: with the last row in Kafka, everything is.
        finish("lode run --until-end", lode.start("run", "--until-end"), 180)
    finally:
        program.kill()

    expect(lode.query("SELECT count(*) FROM dead_letters") in ([], [["0"]]), "there are dead letters")
    lode.start("status").wait()
    # What is refused must not show the secret either.
    expect(lode.start("check", AZURE_STORAGE_ACCOUNT_KEY=f"AAAA{secret()}").wait(timeout=120) != 0, "a wrong key is no error")


def main(program):
    expect(not HOME.exists() or not any(HOME.glob("run/*.pid")), f"a stack runs in {HOME}; hint: LODE_STACK={HOME} make stack-down")
    shutil.rmtree(HOME, ignore_errors=True)
    begun = time.monotonic()
    try:
        script("up.sh")
        lode = Lode(program)
        service = tokens.Service(TOKENS, TOKEN_SECONDS)
        lake.make()
        replay_a_capture(lode)
        run(lode, service)
        folder = HOME / "lake"
        lake.fetch(folder)
        expect_silver_equals_the_database(folder / "online_store")
        expect_bronze_has_each_offset_once(folder / "online_store")
        expect_the_secret_nowhere(folder, HOME / "pipeline", HOME / "lode.log", HOME / "data/azurite/__blobstorage__")
        say(f"passed, {time.monotonic() - begun:.0f} s")
    finally:
        for process in started:
            process.kill()
            process.wait()
        script("down.sh")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
