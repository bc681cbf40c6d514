#!/usr/bin/env python3
"""lakes.py LODE: one capture into lakes that ask for credentials in every way that the README names.

Azurite asks for bearer tokens by TLS; they come from `tokens.py` and live for five seconds each, so that a run lasts longer
than its first. The other ways are a shared access signature there, and an access key of S3 (moto). Into each lake two
`lode` write at once. What is in it equals the database, by the captures' own checker, and no secret stands in anything that
`lode` wrote or said.
"""

import base64
import datetime
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import tokens
from run import CACHE, CAPTURES, CHECK_SILVER, expect, say

import boto3
from azure.core.exceptions import ServiceRequestError
from azure.storage.blob import AccountSasPermissions, ContainerClient, ResourceTypes, generate_account_sas
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HOME = CACHE / "stack/lakes"
BLOB, TOKENS, S3 = 21101, 21102, 21103
ACCOUNT = "devstoreaccount1"
SERVICE = f"https://127.0.0.1:{BLOB}/{ACCOUNT}"
TOKEN_SECONDS = 5
KEY = base64.b64encode(secrets.token_bytes(48)).decode()
S3_KEY = secrets.token_urlsafe(32)


def certificate():
    """A certificate for the loopback address, signed by itself; answers the files of it and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    pem = serialization.Encoding.PEM
    (HOME / "cert.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (HOME / "key.pem").write_bytes(key.private_bytes(pem, *plain))
    return HOME / "cert.pem", HOME / "key.pem"


def start(name, *command, **environment):
    log = (HOME / f"{name}.log").open("wb")
    return subprocess.Popen(list(map(str, command)), env={**os.environ, **environment}, stdout=log, stderr=log)


def container(name):
    return ContainerClient(SERVICE, name, credential=KEY, connection_verify=False)


def bucket():
    key = {"aws_access_key_id": "lode", "aws_secret_access_key": S3_KEY, "region_name": "us-east-1"}
    return boto3.resource("s3", endpoint_url=f"http://127.0.0.1:{S3}", **key).Bucket("lake")


def insist(what, attempt, errors, seconds=60):
    """Until `attempt()` raises none of `errors`."""
    end = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except errors:
            expect(time.monotonic() < end, f"{what} does not answer; see {HOME}")
            time.sleep(0.2)


def ways():
    """Name of a way, its address, what stands in the environment, the lake's options, its secrets."""
    azure = {"azure_storage_endpoint": SERVICE, "azure_storage_account_name": ACCOUNT, "allow_invalid_certificates": "true"}
    entra = {**azure, "allow_http": "true", "azure_authority_host": f"http://127.0.0.1:{TOKENS}"}
    client = {"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant"}
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    allowed = AccountSasPermissions(read=True, write=True, delete=True, list=True, add=True, create=True)
    signature = generate_account_sas(ACCOUNT, KEY, ResourceTypes(service=True, container=True, object=True), allowed, soon)
    (HOME / "assertion").write_text(tokens.ASSERTION)
    federated = {**client, "AZURE_FEDERATED_TOKEN_FILE": str(HOME / "assertion")}
    machine = {**azure, "allow_http": "true"}
    yield "sas", "az://sas/lake", {"AZURE_STORAGE_SAS_KEY": signature}, azure, [signature, signature.split("sig=")[1][:40]]
    yield "client-secret", "az://client-secret/lake", {**client, "AZURE_CLIENT_SECRET": tokens.CLIENT_SECRET}, entra, [tokens.CLIENT_SECRET]
    yield "workload-identity", "az://workload-identity/lake", federated, entra, [tokens.ASSERTION]
    yield "managed-identity", "az://managed-identity/lake", {"AZURE_MSI_ENDPOINT": f"http://127.0.0.1:{TOKENS}/machine"}, machine, []
    keys = {"AWS_ACCESS_KEY_ID": "lode", "AWS_SECRET_ACCESS_KEY": S3_KEY, "AWS_REGION": "us-east-1"}
    plain = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{S3}", "AWS_ALLOW_HTTP": "true"}
    yield "s3", "s3://lake/lake", {**keys, **plain}, {}, [S3_KEY]


def fetch(way, folder):
    """Copies what is in the lake of `way` into `folder`."""
    if way == "s3":
        blobs = ((item.key, item.get()["Body"].read()) for item in bucket().objects.all())
    else:
        client = container(way)
        blobs = ((name, client.download_blob(name).readall()) for name in client.list_blob_names())
    for name, content in blobs:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def take_in(program, way, address, environment, options):
    """Two instances of `lode` take the capture in at once, and both say that all is there."""
    folder = HOME / way
    folder.mkdir()
    options = ", ".join(f"{key} = {json.dumps(value)}" for key, value in options.items())
    (folder / "capture.toml").write_text(
        f'name = "capture"\nmirror_tables = ["*"]\n[source.replay]\nfiles = "{CAPTURES}/open_b.events.jsonl.gz"\n'
        f'[lake]\nroot = "{address}"\noptions = {{ {options} }}\n'
        "[flush]\nrows = 500\n"
    )
    log = (folder / "lode.log").open("wb")
    command, around = [program, "run", "capture.toml", "--until-end"], {**os.environ, **environment, "RUST_LOG": "info,lodestream=debug"}
    both = [subprocess.Popen(command, cwd=folder, env=around, stdout=log, stderr=log) for _ in range(2)]
    try:
        for one in both:
            expect(one.wait(timeout=300) == 0, f"{way}: lode ended with {one.returncode}; see {folder}/lode.log")
    finally:
        for one in both:
            one.kill()
            one.wait()
    fetch(way, folder)


def run(program, service):
    warnings.filterwarnings("ignore", message=".*HTTPS.*")
    for name in ("sas", "client-secret", "workload-identity", "managed-identity"):
        insist("azurite", container(name).create_container, ServiceRequestError)
    insist("moto", bucket().create, Exception)
    for way, address, environment, options, canaries in ways():
        given = len(service.given)
        take_in(program, way, address, environment, options)
        check = [sys.executable, CHECK_SILVER, HOME / way / "lake/silver", CAPTURES / "truth_mariadb"]
        done = subprocess.run(check, stdout=subprocess.PIPE, text=True)
        expect(done.returncode == 0, f"{way}: Silver differs from the database\n{done.stdout}")
        renewed = service.given[given:]
        expect(bool(renewed) == (way not in ("sas", "s3")), f"{way}: {len(renewed)} tokens were asked for")
        expect(len(renewed) != 1, f"{way}: the token was never renewed")
        canaries = [canary.encode() for canary in (*canaries, *renewed, KEY)]
        files = (path for path in (HOME / way).rglob("*") if path.is_file())
        shown = [str(path) for path in files if any(canary in path.read_bytes() for canary in canaries)]
        expect(not shown, f"{way}: a secret stands in {shown[:3]}")
        say(f"{way}: exact after two writers at once, {len(renewed)} tokens, no secret shown")


def main(program):
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    cert, key = certificate()
    service = tokens.Service(TOKENS, TOKEN_SECONDS)
    started = []
    try:
        azurite = CACHE / "stack/azurite/node_modules/azurite/dist/src/blob/main.js"
        listen = ["--blobHost", "127.0.0.1", "--blobPort", BLOB, "--location", HOME / "azurite", "--silent", "--disableTelemetry"]
        secure = ["--skipApiVersionCheck", "--oauth", "basic", "--cert", cert, "--key", key]
        started.append(start("azurite", "node", azurite, *listen, *secure, AZURITE_ACCOUNTS=f"{ACCOUNT}:{KEY}"))
        started.append(start("moto", Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", S3))
        run(Path(program).resolve(), service)
    finally:
        for process in started:
            process.kill()
            process.wait()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
