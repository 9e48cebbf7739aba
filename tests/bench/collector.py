#!/usr/bin/env python3
"""A collector of OTLP over HTTP for the tests: it decodes spans by OpenTelemetry's own messages for Python, and prints them.

    python3 tests/bench/collector.py [--certificate FILE --key FILE]

Its first line is its port; then each span is a line, a JSON object. A line on its stdin is what it answers from then on: a status, and after
200 perhaps how many spans it rejects, and why. It ends with its stdin.
"""

import argparse
import http.server
import json
import ssl
import sys
import threading

import install

try:
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
except ModuleNotFoundError:
    install.ensure("python")
    sys.path.insert(0, install.python())
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUSES = ("unset", "ok", "error")


def attributes(given):
    """Of each its value, whatever its type."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in given}


def spans(request, headers):
    for of_resource in request.resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield {
                    "name": span.name, "kind": KINDS[span.kind],
                    "trace": span.trace_id.hex(), "id": span.span_id.hex(), "parent": span.parent_span_id.hex(),
                    "begun": span.start_time_unix_nano, "ended": span.end_time_unix_nano,
                    "attributes": attributes(span.attributes),
                    "status": STATUSES[span.status.code], "error": span.status.message,
                    "resource": attributes(of_resource.resource.attributes),
                    "scope": [of_scope.scope.name, of_scope.scope.version], "headers": headers,
                }


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status, rejected, reason = 200, 0, ""
    lock = threading.Lock()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = Handler.status
        taken = (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
        if taken and status == 200:
            request = messages.ExportTraceServiceRequest.FromString(body)
            headers = {name.lower(): value for name, value in self.headers.items()}
            with self.lock:
                for span in spans(request, headers):
                    print(json.dumps(span), flush=True)
        reply = messages.ExportTraceServiceResponse()
        if Handler.rejected:
            reply.partial_success.rejected_spans, reply.partial_success.error_message = Handler.rejected, Handler.reason
        reply = reply.SerializeToString()
        self.send_response(status if taken else 404)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A client that goes without a word is what some tests are about."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    options = parser.parse_args()
    server = Server(("127.0.0.1", 0), Handler)
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate, options.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for line in sys.stdin:
        status, rejected, reason, *_ = [*line.rstrip("\n").split(" ", 2), "0", ""]
        Handler.status, Handler.rejected, Handler.reason = int(status), int(rejected), reason


if __name__ == "__main__":
    main()
