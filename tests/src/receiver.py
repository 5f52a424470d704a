"""Receives what `unfreed serve` pushes, with other people's code: OpenTelemetry's messages and
server as its project generates them, gRPC's own library, and Python's web server.

receiver.py CERTIFICATE KEY PORT (0: any) prints where it is, and a line of JSON for each request.
On standard input it is told how to behave: ok, slow, lie, reject, busy.
"""

import json
import ssl
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from opentelemetry.proto.collector.profiles.v1development import (
    profiles_service_pb2,
    profiles_service_pb2_grpc,
)

mode = "ok"
lock = threading.Lock()


def say(value):
    with lock:
        print(json.dumps(value), flush=True)


def pyroscope():
    """The messages of Pyroscope's push.v1."""
    file = descriptor_pb2.FileDescriptorProto(name="push.proto", package="push.v1", syntax="proto3")
    many, text, data, inner = 3, 9, 12, 11
    for name, fields in {
        "Label": [("name", 1, 1, text, None), ("value", 2, 1, text, None)],
        "Sample": [("rawProfile", 1, 1, data, None), ("ID", 2, 1, text, None)],
        "Series": [("labels", 1, many, inner, "Label"), ("samples", 2, many, inner, "Sample")],
        "PushRequest": [("series", 1, many, inner, "Series")],
    }.items():
        message = file.message_type.add(name=name)
        for field, number, label, kind, of in fields:
            message.field.add(
                name=field, number=number, label=label, type=kind,
                type_name=f".push.v1.{of}" if of else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("push.v1.PushRequest"))


PushRequest = pyroscope()


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def otlp(via, request, headers):
    tables = request.dictionary
    # Index 0 stands for nothing.
    assert tables.string_table[0] == ""
    for table in ("mapping", "location", "function", "link", "attribute", "stack"):
        first = getattr(tables, f"{table}_table")[0]
        assert first == type(first)(), table
    build_ids = [
        value(tables.attribute_table[at].value)
        for mapping in tables.mapping_table
        for at in mapping.attribute_indices
        if tables.string_table[tables.attribute_table[at].key_strindex]
        == "process.executable.build_id.gnu"
    ]
    for resource in request.resource_profiles:
        attributes = {it.key: value(it.value) for it in resource.resource.attributes}
        for scope in resource.scope_profiles:
            for profile in scope.profiles:
                stacks = [tables.stack_table[sample.stack_index] for sample in profile.samples]
                functions = {
                    tables.string_table[tables.function_table[line.function_index].name_strindex]
                    for stack in stacks
                    for at in stack.location_indices
                    for line in tables.location_table[at].lines
                }
                say({
                    "via": via,
                    "headers": headers,
                    "attributes": attributes,
                    "build_ids": build_ids,
                    "type": tables.string_table[profile.sample_type.type_strindex],
                    "unit": tables.string_table[profile.sample_type.unit_strindex],
                    "sum": sum(sum(sample.values) for sample in profile.samples),
                    "functions": sorted(functions),
                    "ended": (profile.time_unix_nano + profile.duration_nano) // 1_000_000,
                    "id": profile.profile_id.hex(),
                })


class Service(profiles_service_pb2_grpc.ProfilesServiceServicer):
    def Export(self, request, context):
        answer = profiles_service_pb2.ExportProfilesServiceResponse()
        if mode == "busy":
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        otlp("otlp-grpc", request, dict(context.invocation_metadata()))
        return answer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, content_type="application/x-protobuf"):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        if mode == "slow":
            say({"via": "slow"})
            time.sleep(3)
            return self.answer(200, b"")
        if mode == "lie":
            say({"via": "lie"})
            # A success of a megabyte that is none.
            return self.answer(200, b"\xff" * (1 << 20))
        if mode == "busy":
            say({"via": "busy"})
            return self.answer(503, b"busy", "text/plain")
        if self.path == "/v1development/profiles":
            answer = profiles_service_pb2.ExportProfilesServiceResponse()
            if mode == "reject":
                say({"via": "reject"})
                answer.partial_success.rejected_profiles = 2
                answer.partial_success.error_message = "not today"
                return self.answer(200, answer.SerializeToString())
            request = profiles_service_pb2.ExportProfilesServiceRequest.FromString(body)
            otlp("otlp-http", request, headers)
            return self.answer(200, answer.SerializeToString())
        if self.path == "/push.v1.PusherService/Push":
            assert headers["content-type"] == "application/proto"
            for series in PushRequest.FromString(body).series:
                labels = {label.name: label.value for label in series.labels}
                for sample in series.samples:
                    profile = sample.rawProfile.hex()
                    say({"via": "pyroscope", "labels": labels, "id": sample.ID, "profile": profile})
            return self.answer(200, b"", "application/proto")
        say({"via": "alert", "headers": headers, "path": self.path, "body": json.loads(body)})
        return self.answer(204, b"")

    def log_message(self, *arguments):
        pass


def main():
    global mode
    certificate, key, port = sys.argv[1:]
    pair = open(key, "rb").read(), open(certificate, "rb").read()
    server = grpc.server(futures.ThreadPoolExecutor())
    profiles_service_pb2_grpc.add_ProfilesServiceServicer_to_server(Service(), server)
    rpc = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    plain = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    secure = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    for http in (plain, secure):
        threading.Thread(target=http.serve_forever, daemon=True).start()
    say({"rpc": rpc, "http": plain.server_port, "https": secure.server_port})
    for line in sys.stdin:
        mode = line.strip()
        say({"mode": mode})


main()
