#!/usr/bin/env python3
"""Writes the seeds of the corpora: inputs that a well-behaved peer sends, and some that it does not. Files that a fuzzer
has found stand beside them. Python's standard library only.

    python3 fuzz/seeds.py
"""

import base64
import hashlib
import hmac
import json
import os
import struct

CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def packet(code, body=b""):
    return struct.pack(">II", len(body) + 8, code) + body


def message(tag, body=b""):
    return tag + struct.pack(">I", len(body) + 4) + body


def parameters(*words):
    return b"".join(word + b"\0" for word in words) + b"\0"


def startup():
    user = parameters(b"user", b"app", b"database", b"myapp", b"application_name", b"web", b"client_encoding", b"UTF8")
    options = parameters(b"user", b"app", b"options", b"-c search_path=a\\ b\\", b"replication", b"yes", b"_pq_.x", b"1")
    yield "protocol_3_0", packet(3 << 16, user)
    yield "protocol_3_2", packet(3 << 16 | 2, options)
    yield "ssl_then_startup", packet(80877103) + packet(3 << 16, user)
    yield "gss_then_ssl", packet(80877104) + packet(80877103) + b"\x16\x03\x01"
    yield "cancel", packet(80877102, struct.pack(">II", 4711, 42))
    yield "cancel_with_a_long_key", packet(80877102, struct.pack(">I", 4711) + bytes(range(32)))
    yield "protocol_2", packet(2 << 16, user)
    yield "no_user", packet(3 << 16, parameters(b"database", b"x"))
    yield "too_long", struct.pack(">I", 0x7fffffff)
    yield "no_terminator", packet(3 << 16, b"user\0app")


def frames():
    rows = message(b"T", b"\0\0") + message(b"D", b"\0\0" * 40) * 3 + message(b"C", b"SELECT 3\0") + message(b"Z", b"I")
    for size in (1, 5, 7, 255):
        yield f"rows_by_{size}", bytes([size]) + rows
    yield "short_length", b"\x09" + message(b"Z", b"I") + b"D\0\0\0\x03"
    yield "negative_length", b"\x06" + message(b"1") + b"D\xff\xff\xff\xff"
    yield "half", b"\x03" + rows + b"D\0\0\1\0abc"


def session():
    yield "queries", bytes([0, 1, 1, 4, 0, 2, 5, 4]) + bytes([0, 3, 5, 5, 0, 3, 5, 5])
    yield "pipeline", bytes([2, 3, 0, 0, 1, 0, 3, 1, 9, 0]) + bytes([0, 0, 0, 0, 3, 3, 3, 3, 5, 5])
    yield "error_in_a_pipeline", bytes([2, 4, 0, 7, 1, 0, 3, 1, 3, 4, 9, 0]) + bytes([0, 0, 3, 3, 0, 0, 5, 5, 0, 3, 5, 5])
    yield "copy_in", bytes([3, 0, 0, 1, 2, 0, 0, 0, 0, 0]) + bytes([0, 3, 5, 5, 0, 0, 3, 3, 0, 5])
    yield "copy_extended", bytes([3, 1, 0, 0, 1, 2, 4, 0, 0, 1, 0, 0]) + bytes([0, 0, 0, 0, 3, 3, 3, 5, 5, 0, 3, 5])
    yield "replication", bytes([3, 2, 0, 2, 0, 0, 0, 1, 0]) + bytes([0, 0, 3, 3, 5, 0, 3, 5, 5])
    yield "timeout", bytes([2, 2, 0, 0, 1, 0, 9, 0]) + bytes([0, 3, 7, 0, 3, 5, 5, 7])


def auth():
    local, plain, verified, unverified, default = 1, 0, 2 | 4, 3 | 4, 4 << 5 | 2 << 3

    def said(choice, *bodies):
        return bytes([choice]) + b"".join(bytes([len(body)]) + body for body in bodies)

    ok, cleartext, md5 = (struct.pack(">I", code) for code in (0, 3, 5))
    sasl = struct.pack(">I", 10) + b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"
    only = struct.pack(">I", 10) + b"SCRAM-SHA-256\0\0"
    yield "trust", said(default | local, ok)
    yield "trust_without_tls", said(default | plain, ok)
    for name, transport in (("plain", plain), ("local", local), ("verified", verified), ("unverified", unverified)):
        yield f"cleartext_{name}", said(default | transport, cleartext, ok)
        yield f"cleartext_written_{name}", said(2 << 5 | 2 << 3 | transport, cleartext, ok)
        yield f"scram_{name}", scram(said, default | transport, only, b"n,," if transport < 2 else b"y,,")
        yield f"scram_offered_{name}", said(default | transport, sasl, ok)
    yield "md5", said(default | local, md5 + b"salt", ok)
    yield "ok_too_early", said(default | local, only, ok)
    yield "gss", said(default | local, struct.pack(">I", 7))


def scram(said, choice, offer, flag):
    """A whole exchange, with a server that knows the password."""
    nonce = base64.b64encode(bytes([7] * 18))
    first = b"r=" + nonce + b"server,s=" + base64.b64encode(b"a salt of sixteen") + b",i=4096"
    salted = hashlib.pbkdf2_hmac("sha256", b"a-password-of-a-role", b"a salt of sixteen", 4096)
    final = b"c=" + base64.b64encode(flag) + b",r=" + nonce + b"server"
    signed = b"n=,r=" + nonce + b"," + first + b"," + final
    key = hmac.digest(salted, b"Server Key", "sha256")
    signature = base64.b64encode(hmac.digest(key, signed, "sha256"))
    return said(choice, offer, struct.pack(">I", 11) + first, struct.pack(">I", 12) + b"v=" + signature, struct.pack(">I", 0))


def login():
    ok, ready = message(b"R", bytes(4)), message(b"Z", b"I")
    status = message(b"S", b"server_version\x0018.1\0")
    key = message(b"K", struct.pack(">II", 4711, 42))
    error = message(b"E", b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0Rauth_failed\0\0")
    row = message(b"T", b"\0\0") + message(b"D", b"\0\1\0\0\0\2on") + message(b"C", b"SHOW\0") + ready
    done = message(b"C", b"DISCARD ALL\0") + ready
    yield "login", ok + status + key + ready
    yield "login_and_questions", ok + status + key + ready + row + done
    yield "negotiated", message(b"v", struct.pack(">II", 3 << 16, 0)) + message(b"N", b"SNOTICE\0\0") + ok + ready
    yield "refused", error
    yield "refused_later", ok + status + error
    yield "cleartext", message(b"R", struct.pack(">I", 3)) + ok + ready
    yield "plain_text", b"Ecould not fork new process for connection: Resource temporarily unavailable\n\0"
    yield "http", b"HTTP/1.1 400 Bad Request\r\n\r\n"
    yield "huge", b"R\x7f\xff\xff\xff\0\0\0\0"


def uri():
    yield "plain", b"postgresql://db:5432/"
    yield "hosts", b"postgresql://one:5432,two,[::1]:6000/app?target_session_attrs=prefer-standby&load_balance_hosts=random"
    yield "tls", b"postgres://db/?sslmode=verify-ca&sslrootcert=/etc/ca.pem&sslcert=/c&sslkey=/k&channel_binding=require"
    yield "socket", b"postgresql://%2Fvar%2Frun:5432/x?keepalives_idle=10&tcp_user_timeout=5&connect_timeout=3"
    yield "words", b"postgresql:///?host=/dir,db&port=1,2&dbname=x&sslnegotiation=direct&sslmode=require"
    yield "password", b"postgresql://app:pa55word@db/"
    yield "unknown", b"postgresql://db/?password=pa55word"
    yield "escape", b"postgresql://db/%zz%00"


def config():
    yield "one_route", b"""listen = ["127.0.0.1:6432"]
[vault]
addr = ["https://vault:8200"]
[vault.auth]
method = "kubernetes"
role = "app"
[[route]]
name = "app"
user = "app"
upstream = "postgresql://db:5432/"
vault_path = "database/creds/app-role"
drain = "2m"
"""
    yield "many", b"""http = "off"
admin = "/run/leasehold/admin.sock"
log_level = "debug"
threads = 2
[limits]
max_sessions = 100
handshake_timeout = "15s"
[cancel]
unknown = "forward"
[[listener]]
address = ["127.0.0.1:6432", "[::1]:6432"]
max_sessions = 10
handshake_timeout = "5s"
[vault]
addr = "http://127.0.0.1:8200"
[vault.auth]
method = "approle"
role_id = "r"
secret_id_file = "/secret"
[defaults]
rotate_after = "1h"
[[route]]
name = "one"
user = "one"
upstream = "postgresql://a,b/"
vault_path = "ns/database/creds/one"
[[route]]
name = "two"
user = "*"
database = "x"
upstream = "postgresql://c/"
vault_path = "database/static-creds/two"
set_role = "owner"
lazy = true
"""
    yield "secret_in_a_wrong_key", b"pasword = \"pa55word\"\n[vault.auth]\ntoken = \"pa55word\"\n"
    yield "broken", b"listen = [\n"
    yield "unquoted", b"[vault]\naddr = https://vault\n"


def vault_reply():
    def reply(choice, status, body):
        return bytes([choice]) + struct.pack(">H", status - 100) + (body if isinstance(body, bytes) else json.dumps(body).encode())

    creds = {"request_id": "1", "lease_id": "database/creds/app/abcdefgh", "lease_duration": 3600, "renewable": True,
             "data": {"username": "v-app", "password": "p"}, "auth": None, "warnings": None, "wrap_info": None}
    login = {"auth": {"client_token": "hvs.x", "lease_duration": 60, "renewable": True, "token_type": "batch", "num_uses": 3}}
    facts = {"data": {"ttl": 50, "expire_time": "2030-01-01T00:00:00Z", "renewable": True, "type": "service", "num_uses": 0,
                      "period": 0, "explicit_max_ttl": 10, "orphan": True}}
    yield "creds", reply(1, 200, creds)
    yield "creds_cut", reply(1, 200, json.dumps(creds).encode()[:-40])
    for name, number in (("negative", -1), ("fraction", 3.5), ("huge", 10**18), ("more_than_64_bits", 10**30), ("text", "3600")):
        yield f"creds_{name}", reply(1, 200, dict(creds, lease_duration=number))
    yield "static", reply(1, 200, {"data": {"username": "u", "password": "p", "ttl": -3}})
    yield "renewed", reply(2, 200, {"lease_id": "x", "lease_duration": 60, "renewable": False, "data": None})
    yield "login", reply(0, 200, login)
    yield "facts", reply(4, 200, facts)
    yield "capabilities", reply(8, 200, {"data": {"capabilities": ["read"], "sys/leases/revoke": ["update"]}})
    yield "health", reply(9, 503, {"sealed": True, "standby": False})
    yield "not_found", reply(2, 400, {"errors": ["lease not found"]})
    yield "denied", reply(4, 403, {"errors": ["permission denied"]})
    yield "statement", reply(1, 500, {"errors": ["ERROR: syntax error at or near \"hvs.a-token-of-ours\" (SQLSTATE 42601)"]})
    yield "page", reply(1, 502, b"<html>bad gateway</html>")
    yield "nested", reply(1, 200, b'{"data":' + b"[" * 300)
    yield "unwrapped", reply(0, 200, {"data": {"secret_id": "s", "creation_path": "auth/approle/role/app/secret-id"}})


def console():
    yield "show", b"SHOW POOLS; show \"routes\" ; -- nothing\n select 1"
    yield "strings", b"select 'a;b'; set x to 'y'; /* ; */ begin; rollback to x; $$a;b$$"
    yield "query", message(b"Q", b"SHOW ROUTES\0") + message(b"X")
    yield "extended", (message(b"P", b"\0SHOW STATS\0\0\0") + message(b"B", b"\0\0\0\0\0\1\0\0\0\1x\0\1\0\1") + message(b"D", b"P\0")
                       + message(b"E", b"\0\0\0\0\5") + message(b"C", b"S\0") + message(b"H") + message(b"S"))
    yield "short", b"Q\0\0\0\x03"
    yield "long", b"Q\x7f\xff\xff\xff"


def admin_request():
    host = b"Host: localhost:9091"
    yield "status", b"GET\n/status\n" + host
    yield "rotate", b"POST\n/rotate?route=app&drain=60s\n" + host + b"\nleasehold-admin: 1"
    yield "sessions", b"GET\n/sessions?user=app&state=idle&id=7\n" + host
    yield "page", b"GET\n/page.js\n" + host + b"\nSec-Fetch-Site: same-origin"
    yield "another_site", b"POST\n/quitquitquit\nHost: example.com\nOrigin: http://example.com"
    yield "absolute", b"GET\nhttp://[::1]:9091/livez\nHost: [::ffff:127.0.0.1]:1\nHost: localhost"
    yield "level", b"POST\n/log?level=trace\n" + host + b"\nSec-Fetch-Site: cross-site"


def state_file():
    span = {"secs": 3600, "nanos": 0}
    term = {"sent_at": 500, "ends_at": 3600000000500, "granted": span, "longest": span, "margin": {"secs": 5, "nanos": 0},
            "renewal": {"Scheduled": 2400000000000}, "renewals": 2, "failures": 0}
    stopped = dict(term, renewal={"Stopped": {"why": "Capped", "replace_at": 7}})
    route = {"route": "app", "tokens": [{"id": 1, "token": "hvs.x", "life": {"term": stopped, "owned": True}}],
             "generations": [{"username": "v-app", "password": "p", "lease_id": "database/creds/app/x",
                              "origin": {"vault_path": "database/creds/app", "login": "approle"},
                              "life": {"token": 1, "issued_at": 500, "as_issued": span, "term": term, "serves": True}}]}
    whole = {"version": 1, "boot": "boot", "vault": "http://vault", "routes": [route]}
    yield "whole", json.dumps(whole).encode()
    yield "empty", json.dumps(dict(whole, routes=[])).encode()
    yield "of_another_version", json.dumps(dict(whole, version=2)).encode()
    yield "of_another_boot", json.dumps(dict(whole, boot="x")).encode()
    yield "of_the_future", json.dumps(whole).replace("500", "99999999999999999").encode()
    yield "cut", json.dumps(whole).encode()[:-30]


def certificate():
    """A certificate for db.example that signs itself, in DER and PEM, and what is none."""
    der = base64.b64decode(CERTIFICATE)
    yield "der", der
    pem = b"-----BEGIN CERTIFICATE-----\n" + CERTIFICATE.encode() + b"\n-----END CERTIFICATE-----\n"
    yield "pem", pem
    yield "pem_twice", pem * 2
    yield "key", b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"
    yield "list", b"-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"
    yield "cut", der[:-50]


CERTIFICATE = (
    "MIIBqTCCAVCgAwIBAgIUBPXvNfD0veW6T0LlxSzBub5C3kMwCgYIKoZIzj0EAwIwFTETMBEGA1UEAwwKZGIuZXhhbXBsZTAgFw0yNjEyMDEwMD"
    "M2MzdaGA8yMTI2MTEwNzAwMzYzN1owFTETMBEGA1UEAwwKZGIuZXhhbXBsZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABOKuuHupcVfop+gF"
    "vkRRvwaPA0RVhlG0d1uEUMlt9jNoxfYPxul/3P+mEJThddU5LLJAVax+QTRmsHVskAr4rrGjfDB6MB0GA1UdDgQWBBRTOZHiwcE8iqd0HghjhA"
    "ldcQEAEjAfBgNVHSMEGDAWgBRTOZHiwcE8iqd0HghjhAldcQEAEjAPBgNVHRMBAf8EBTADAQH/MCcGA1UdEQQgMB6CCSouZXhhbXBsZYILZGIu"
    "ZXhhbXBsZS6HBH8AAAEwCgYIKoZIzj0EAwIDRwAwRAIge1M5TWNxXeQfXgp9kQVg54yX5/LIuqEnJSLzKhl08u4CID0NNxbzNmWfTYWcRnayfw"
    "3zakEONXifosT7Bqa6WyuE"
)

SETS = [startup, frames, session, auth, login, uri, config, vault_reply, console, admin_request, state_file, certificate]

for seeds in SETS:
    directory = os.path.join(CORPUS, seeds.__name__)
    os.makedirs(directory, exist_ok=True)
    for name, content in seeds():
        with open(os.path.join(directory, name), "wb") as file:
            file.write(content)
