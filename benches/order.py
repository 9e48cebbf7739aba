#!/usr/bin/env python3
"""Writes benches/functions.order: the functions that a leasehold runs from its start to idle sessions, in the order of their first call.

    cargo build --release && python3 benches/order.py

build.rs gives the names to the linker. A name holds a hash of the function's type, of the compiler, and of its crate with those
that it depends on: after a new compiler or a change of Cargo.lock the file is written anew. Until then the functions whose
names have changed lie where the linker puts them.
The program runs on the servers of the benchmark, under ptrace, with a breakpoint on each of its functions that is taken
away at the first hit. x86-64 only.
"""

import argparse
import bisect
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TRACEME, CONT, GETREGS, SETREGS, SETOPTIONS = 0, 7, 12, 13, 0x4200
TRACE_CLONE, EXIT_KILL = 0x8, 0x100000
ANY_THREAD = 0x40000000  # __WALL
RIP = 16  # the place of rip among the 27 registers of user_regs_struct
BREAKPOINT = b"\xcc"

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long


def functions(program):
    """{address: name} of all functions of the program."""
    listed = subprocess.run(["readelf", "-sW", program], check=True, capture_output=True, text=True).stdout
    fields = (line.split() for line in listed.splitlines())
    return {int(field[1], 16): field[7] for field in fields
            if len(field) == 8 and field[3] == "FUNC" and field[6] != "UND" and int(field[2], 0) > 0}


def trace(out, command):
    """Runs the command, and writes the name of each of its functions at its first call."""
    names = functions(command[0])
    addresses = sorted(names)
    child = os.fork()
    if child == 0:
        LIBC.ptrace(TRACEME, 0, None, None)
        os.execv(command[0], command)
    os.waitpid(child, 0)
    LIBC.ptrace(SETOPTIONS, child, None, TRACE_CLONE | EXIT_KILL)
    with open(f"/proc/{child}/maps") as maps:
        base = int(maps.readline().split("-")[0], 16)
    memory = os.open(f"/proc/{child}/mem", os.O_RDWR)
    first_bytes = {address: os.pread(memory, 1, base + address) for address in addresses}
    for address in addresses:
        os.pwrite(memory, BREAKPOINT, base + address)
    LIBC.ptrace(CONT, child, None, None)
    seen, registers = set(), (ctypes.c_ulonglong * 27)()
    with open(out, "w") as order:
        while True:
            thread, status = os.waitpid(-1, ANY_THREAD)
            if not os.WIFSTOPPED(status):
                if thread == child:
                    return
                continue
            number, of_clone = os.WSTOPSIG(status), status >> 16
            if number == signal.SIGTRAP and not of_clone:
                LIBC.ptrace(GETREGS, thread, None, registers)
                address = registers[RIP] - 1 - base
                at = bisect.bisect_left(addresses, address)
                if at < len(addresses) and addresses[at] == address:
                    if address not in seen:
                        seen.add(address)
                        print(names[address], file=order, flush=True)
                        os.pwrite(memory, first_bytes[address], base + address)
                    registers[RIP] -= 1
                    LIBC.ptrace(SETREGS, thread, None, registers)
                number = 0
            elif of_clone or number == signal.SIGSTOP:
                number = 0
            LIBC.ptrace(CONT, thread, None, number)


def measure(program, out):
    """Starts the servers and the program under `trace`, and lets clients come and go."""
    import run
    from endpoints import Client

    options = argparse.Namespace(only="leasehold", binary=program, also=[], pgbouncer=None, sessions="100", scale=1)
    with contextlib.ExitStack() as cleanup:
        servers = run.Servers()
        cleanup.callback(servers.close)
        endpoint = run.Bench(options, servers, cleanup).plain[0]
        endpoint.command = [sys.executable, __file__, "--trace", out, *endpoint.command]
        cleanup.callback(endpoint.stop)
        endpoint.start()
        for _ in range(3):
            clients = [Client(endpoint) for _ in range(50)]
            for client in clients:
                client.query("select 1")
            for path in ("readyz", "livez", "metrics"):
                urllib.request.urlopen(f"http://127.0.0.1:{endpoint.http}/{path}").read()
            time.sleep(5)
            for client in clients:
                client.close()


def main():
    if sys.argv[1:2] == ["--trace"]:
        return trace(sys.argv[2], sys.argv[3:])
    out = os.path.join(ROOT, "benches", "functions.order")
    measure(os.path.join(ROOT, "target", "release", "leasehold"), out)
    with open(out) as file:
        print(f"order: {len(file.readlines())} functions")


if __name__ == "__main__":
    main()
