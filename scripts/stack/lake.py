#!/usr/bin/env python3
"""The container `lake` on the stack's Azurite.

lake.py make            makes it, if it is not there
lake.py fetch FOLDER    copies what is in it into FOLDER, while nothing writes to it; a name's slashes are folders
"""

import os
import sys
from pathlib import Path

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import ContainerClient

ACCOUNT = "devstoreaccount1"


def address():
    return f"http://127.0.0.1:{os.environ.get('STACK_BLOB_PORT', '21000')}"


def container():
    home = os.environ.get("LODE_STACK") or Path(os.environ.get("LODE_CACHE", Path.home() / ".cache/lodestream"), "stack/home")
    return ContainerClient(f"{address()}/{ACCOUNT}", "lake", credential=Path(home, "secret").read_text())


def make():
    try:
        container().create_container()
    except ResourceExistsError:
        pass


def fetch(folder):
    client = container()
    for name in client.list_blob_names():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.download_blob(name).readall())


if __name__ == "__main__":
    if sys.argv[1:] == ["make"]:
        make()
    elif sys.argv[1:2] == ["fetch"] and len(sys.argv) == 3:
        fetch(sys.argv[2])
    else:
        sys.exit(__doc__)
