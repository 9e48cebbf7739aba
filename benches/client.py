"""As much of PostgreSQL's protocol as the bench needs: login by trust or SCRAM-SHA-256, with or without TLS, simple queries, COPY."""

import base64
import contextlib
import hashlib
import hmac
import os
import socket
import ssl
import struct


class Client:
    """One session. `endpoint` says where: host (a directory is a Unix socket), port, user, password, database, tls."""

    def __init__(self, endpoint):
        self.buffer = b""
        self.socket = connect(endpoint)
        parameters = f"user\0{endpoint.user}\0database\0{endpoint.database}\0\0".encode()
        self.socket.sendall(struct.pack("!II", len(parameters) + 8, 3 << 16) + parameters)
        while True:
            kind, body = self.message()
            if kind == b"R":
                self.authenticate(struct.unpack("!I", body[:4])[0], body[4:], endpoint.password)
            elif kind == b"E":
                raise RuntimeError(body)
            elif kind == b"Z":
                return

    def authenticate(self, request, body, password):
        if request == 10:
            nonce = base64.b64encode(os.urandom(18)).decode()
            self.first = f"n=,r={nonce}"
            message = f"n,,{self.first}".encode()
            self.send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(message)) + message)
        elif request == 11:
            challenge = body.decode()
            said = dict(part.split("=", 1) for part in challenge.split(","))
            salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(said["s"]), int(said["i"]))
            key = hmac.digest(salted, b"Client Key", "sha256")
            last = "c=biws,r=" + said["r"]
            signed = hmac.digest(hashlib.sha256(key).digest(), f"{self.first},{challenge},{last}".encode(), "sha256")
            proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signed))).decode()
            self.send(b"p", f"{last},p={proof}".encode())
        elif request not in (0, 12):
            raise RuntimeError(f"authentication request {request}")

    def send(self, kind, body=b""):
        self.socket.sendall(kind + struct.pack("!I", len(body) + 4) + body)

    def message(self):
        while len(self.buffer) < 5 or len(self.buffer) < 1 + struct.unpack("!I", self.buffer[1:5])[0]:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError
            self.buffer += more
        end = 1 + struct.unpack("!I", self.buffer[1:5])[0]
        kind, body, self.buffer = self.buffer[:1], self.buffer[5:end], self.buffer[end:]
        return kind, body

    def until(self, wanted):
        while True:
            kind, body = self.message()
            if kind == b"E":
                raise RuntimeError(body)
            if kind == wanted:
                return

    def query(self, sql):
        self.send(b"Q", sql.encode() + b"\0")
        self.until(b"Z")

    def read_all(self, sql):
        """Sends a query; the bytes of its answer, not looked at, up to ReadyForQuery."""
        self.send(b"Q", sql.encode() + b"\0")
        into = memoryview(bytearray(1 << 20))
        total, tail = 0, b""
        while tail != b"Z\0\0\0\5I":
            got = self.socket.recv_into(into)
            if got == 0:
                raise EOFError
            total += got
            tail = (tail + bytes(into[max(0, got - 6):got]))[-6:]
        return total

    def copy_in(self, sql, total):
        """Sends so many bytes as rows of 8 KiB."""
        self.send(b"Q", sql.encode() + b"\0")
        self.until(b"G")
        rows = (b"y" * 8190 + b"\n") * 8
        message = b"d" + struct.pack("!I", len(rows) + 4) + rows
        sent = 0
        while sent < total:
            self.socket.sendall(message)
            sent += len(message)
        self.send(b"c")
        self.until(b"Z")
        return sent

    def close(self):
        with contextlib.suppress(OSError):
            self.send(b"X")
        self.socket.close()


def connect(endpoint):
    if endpoint.host.startswith("/"):
        unix = socket.socket(socket.AF_UNIX)
        unix.settimeout(60)
        unix.connect(f"{endpoint.host}/.s.PGSQL.{endpoint.port}")
        return unix
    tcp = socket.create_connection((endpoint.host, endpoint.port), timeout=60)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not endpoint.tls:
        return tcp
    tcp.sendall(struct.pack("!II", 8, 80877103))
    if tcp.recv(1) != b"S":
        raise RuntimeError("the server has no TLS")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(tcp)
