"""Several processes that train together, on this machine."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import torch
from torch.multiprocessing.spawn import start_processes

WORLD = 2


def join(rank: int, port: int) -> None:
    """What a launcher tells a process; to be called first in it."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= address | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    torch.set_num_threads(1)


def run_ranks(work: Callable[[int, int, str], None], folder: Path) -> None:
    """``work(rank, port, folder)`` in `WORLD` processes, to their end."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    start_processes(work, (port, str(folder)), nprocs=WORLD, start_method="spawn")
