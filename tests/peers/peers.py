"""Starts backends and a Ringway between them and other people's clients; each check is a function.

    peers.py BINARY FOLDER
"""

import base64
import hashlib
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import traceback

BINARY, FOLDER = sys.argv[1:3]
HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 30  # seconds that any program may take
LARGE = bytes(at * 7 & 255 for at in range(1 << 20))

try:
    import grpc
except ImportError:
    grpc = None
try:
    import httpx
except ImportError:
    httpx = None


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def run(*command, **options):
    """The output of a program, which must end well and in time."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=PATIENCE, check=False, **options)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.decode()[-2000:]}")
    return done.stdout


class Origin(http.server.BaseHTTPRequestHandler):
    """A backend of HTTP/1."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self):
        size = int(self.path.rpartition("/")[2]) if self.path.startswith("/size/") else 4
        self.answer(b"x" * size)

    do_HEAD = do_GET

    def do_POST(self):
        if self.headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["content-length"]))
        self.answer(body)

    def answer(self, body):
        self.send_response(200)
        self.send_header("x-version", "1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # 160 connections may come at once


def origin():
    server = Server(("127.0.0.1", 0), Origin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def node_server():
    """The port of a backend of HTTP/2 by Node, and its process; none without Node."""
    if not shutil.which("node"):
        return None, None
    child = subprocess.Popen(["node", f"{HERE}/server.js"], stdout=subprocess.PIPE)
    return int(child.stdout.readline()), child


def grpc_server(is_available):
    """A server of gRPC without protobuf, whose health service says that it serves."""
    from concurrent import futures

    def unary(method):
        return grpc.unary_unary_rpc_method_handler(method)

    def slow(_request, context):
        left = threading.Event()
        context.add_callback(left.set)
        if left.wait(5):
            CANCELLED.set()
        return b"late"

    def meta(_request, context):
        context.send_initial_metadata((("first", "1"),))
        context.set_trailing_metadata((("last-bin", b"\x00\xff"),))
        return b"m"

    def busy(request, context):
        if not is_available:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return request

    methods = {
        "/grpc.health.v1.Health/Check": unary(lambda _r, _c: b"\x08\x01"),
        "/t/Unary": unary(lambda r, _: b"u:" + r),
        "/t/Down": grpc.unary_stream_rpc_method_handler(lambda _r, _c: (b"%d" % i for i in range(500))),
        "/t/Up": grpc.stream_unary_rpc_method_handler(lambda all, _: b"%d" % sum(map(len, all))),
        "/t/Both": grpc.stream_stream_rpc_method_handler(lambda all, _: (b"e:" + one for one in all)),
        "/t/Fail": unary(lambda _, c: c.abort(grpc.StatusCode.NOT_FOUND, "no such thing")),
        "/t/Slow": unary(slow),
        "/t/Meta": unary(meta),
        "/t/Busy": unary(busy),
    }

    class All(grpc.GenericRpcHandler):
        def service(self, details):
            return methods.get(details.method)

    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((All(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return port, server


CANCELLED = threading.Event()
SKIPPED = []


def needs(what, there):
    if not there:
        SKIPPED.append(what)
    return there


# ------------------------------------------------------------------------------------- the checks


def curl(stage):
    if not needs("curl", shutil.which("curl")):
        return
    large = f"{FOLDER}/large"
    for url, version in stage.urls():
        for how in ("--http1.1", "--http2" if url.startswith("https") else "--http2-prior-knowledge"):
            said = ["curl", "-sSk", how, "-m", "20"]
            assert run(*said, f"{url}/size/300000") == b"x" * 300_000, (url, how)
            assert run(*said, "--data-binary", f"@{large}", f"{url}/echo") == LARGE, (url, how)
            facts = run(*said, "-I", "-w", "%{http_version}", f"{url}/size/5").decode()
            assert facts.endswith("1.1" if how == "--http1.1" else "2"), facts
            assert f"x-version: {version}" in facts.lower(), facts


def nghttp(stage):
    if not needs("nghttp", shutil.which("nghttp")):
        return
    for url, _ in stage.urls():
        assert run("nghttp", "--no-verify-peer", f"{url}/size/300000") == b"x" * 300_000, url
        came = run("nghttp", "--no-verify-peer", "-d", f"{FOLDER}/large", f"{url}/echo")
        assert came == LARGE, (url, len(came))
        said = run("nghttp", "-nv", "--no-verify-peer", *[f"{url}/size/{at}" for at in range(20)])
        assert said.count(b":status: 200") == 20, said.decode()


def h2load(stage):
    if not needs("h2load", shutil.which("h2load")):
        return
    for url, _ in stage.urls():
        said = run("h2load", "-n2000", "-c8", "-m20", f"{url}/size/1000").decode()
        assert "2000 succeeded, 0 failed, 0 errored" in said, said


def node(stage):
    if needs("node", stage.node):
        for url in (stage.plain_2, stage.tls_2):
            assert run("node", f"{HERE}/client.js", url) == b"good\n"


def websocket_of_http_1(stage):
    """An upgrade of HTTP/1 becomes a CONNECT of HTTP/2, whose server is Node."""
    if not stage.node:
        return
    key = base64.b64encode(os.urandom(16)).decode()
    port = int(stage.plain_2.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as stream:
        stream.settimeout(PATIENCE)
        stream.sendall(f"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                       f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += stream.recv(1)
        proof = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        assert head.startswith(b"HTTP/1.1 101 ") and base64.b64encode(proof) in head, head
        threading.Thread(target=stream.sendall, args=(LARGE,), daemon=True).start()
        came = b""
        while len(came) < len(LARGE):
            piece = stream.recv(1 << 16)
            assert piece, len(came)
            came += piece
        assert came == LARGE


def of_httpx(stage):
    if not needs("httpx", httpx):
        return
    for url, version in stage.urls():
        of_1, of_2 = (False, True) if url.startswith("https") else (False, True)
        with httpx.Client(http1=of_1, http2=of_2, verify=False, timeout=PATIENCE) as client:
            answer = client.get(f"{url}/size/300000")
            assert (answer.http_version, answer.content) == ("HTTP/2", b"x" * 300_000), url
            assert answer.headers["x-version"] == version
            pieces = (LARGE[at:at + 10_000] for at in range(0, len(LARGE), 10_000))
            assert client.post(f"{url}/echo", content=pieces).content == LARGE
            for at in range(100):
                assert client.get(f"{url}/size/{at}").content == b"x" * at


def of_grpc(stage):
    if not needs("grpcio", stage.grpc):
        return
    with grpc.insecure_channel(stage.grpc) as channel:
        def unary(name, request=b"", **options):
            return channel.unary_unary("/t/" + name)(request, timeout=options.get("timeout", PATIENCE))

        def refused(name, **options):
            try:
                unary(name, **options)
            except grpc.RpcError as error:
                return error.code()
            raise AssertionError(f"{name} was answered")

        assert unary("Unary", b"x" * 300_000) == b"u:" + b"x" * 300_000
        down = list(channel.unary_stream("/t/Down")(b"", timeout=PATIENCE))
        assert down == [b"%d" % at for at in range(500)]
        up = channel.stream_unary("/t/Up")(iter([b"y" * 1000] * 300), timeout=PATIENCE)
        assert up == b"300000"
        both = channel.stream_stream("/t/Both")(iter([b"%d" % at for at in range(50)]), timeout=PATIENCE)
        assert list(both) == [b"e:%d" % at for at in range(50)]
        assert refused("Fail") == grpc.StatusCode.NOT_FOUND
        assert refused("None") == grpc.StatusCode.UNIMPLEMENTED
        began = time.monotonic()
        assert refused("Slow", timeout=0.5) == grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 4, "its deadline bounds it"
        CANCELLED.clear()
        call = channel.unary_unary("/t/Slow").future(b"")
        time.sleep(0.3)
        call.cancel()
        assert CANCELLED.wait(4), "a server is told that its client has left"
        answer, call = channel.unary_unary("/t/Meta").with_call(b"", timeout=PATIENCE)
        assert answer == b"m" and ("first", "1") in call.initial_metadata()
        assert ("last-bin", b"\x00\xff") in call.trailing_metadata()
        calls = [channel.unary_unary("/t/Unary").future(b"q", timeout=PATIENCE) for _ in range(400)]
        assert all(call.result() == b"u:q" for call in calls)
        # One of two servers is never available.
        assert all(unary("Busy", b"now") == b"now" for _ in range(10))
    with grpc.insecure_channel(stage.gone) as channel:
        try:
            channel.unary_unary("/t/Unary")(b"", timeout=PATIENCE)
            raise AssertionError("nobody is there")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error


CHECKS = [curl, nghttp, h2load, node, websocket_of_http_1, of_httpx, of_grpc]


class Stage:
    """A Ringway, its backends, and where each listener is."""

    def __init__(self):
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
            "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", f"{FOLDER}/key.pem", "-out",
            f"{FOLDER}/cert.pem")
        with open(f"{FOLDER}/large", "wb") as file:
            file.write(LARGE)
        self.node, self.node_child = node_server()
        self.children, self.servers = [self.node_child] if self.node else [], []
        text, names = f'[global]\ncores = 1\nadmin = "off"\nstate-dir = "{FOLDER}/state"\n', {}
        tls = f'tls = {{ certificates = [{{ cert = "{FOLDER}/cert.pem", key = "{FOLDER}/key.pem" }}] }}'
        both = 'protocols = ["h1", "h2"]'

        def listener(name, pool, line):
            port = names[name] = free_port()
            return f'[listener.{name}]\nbind = "127.0.0.1:{port}"\npool = "{pool}"\n{line}\n'

        text += f'[pool.one]\nbackends = ["127.0.0.1:{origin()}"]\n'
        text += listener("plain1", "one", both) + listener("tls1", "one", tls)
        if self.node:
            text += f'[pool.two]\nbackends = ["127.0.0.1:{self.node}"]\nprotocol = "h2c"\n'
            text += listener("plain2", "two", both) + listener("tls2", "two", tls)
        if grpc:
            ports = []
            for is_available in (True, False):
                port, server = grpc_server(is_available)
                ports.append(f'"127.0.0.1:{port}"')
                self.servers.append(server)
            text += (f'[pool.calls]\nbackends = [{", ".join(ports)}]\nprotocol = "h2c"\n'
                     'health = { type = "grpc", interval = "1s" }\n'
                     'retry = { on = ["grpc:unavailable"] }\n')
            text += f'[pool.gone]\nbackends = ["127.0.0.1:{free_port()}"]\nprotocol = "h2c"\n'
            text += listener("calls", "calls", both) + listener("gone", "gone", both)
        with open(f"{FOLDER}/r.toml", "w", encoding="utf-8") as file:
            file.write(text)
        log = open(f"{FOLDER}/log", "wb")
        ringway = subprocess.Popen([BINARY, "run", "-c", f"{FOLDER}/r.toml"], stderr=log,
                                   env={**os.environ, "RUNTIME_DIRECTORY": FOLDER})
        self.children.append(ringway)
        self.ringway = ringway
        at = {name: f"127.0.0.1:{port}" for name, port in names.items()}
        self.plain_1, self.tls_1 = f"http://{at['plain1']}", f"https://{at['tls1']}"
        self.plain_2, self.tls_2 = f"http://{at.get('plain2')}", f"https://{at.get('tls2')}"
        self.grpc, self.gone = at.get("calls"), at.get("gone")
        until = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", names["plain1"]), 1).close()
                return
            except OSError:
                assert ringway.poll() is None and time.monotonic() < until, "it does not start"
                time.sleep(0.1)

    def urls(self):
        """Each way in, and which version its backend speaks."""
        return [(self.plain_1, "1"), (self.tls_1, "1"),
                *([(self.plain_2, "2"), (self.tls_2, "2")] if self.node else [])]

    def strike(self):
        self.ringway.terminate()
        ended = self.ringway.wait(PATIENCE)
        for server in self.servers:
            server.stop(0)
        for child in self.children:
            child.kill()
            child.wait(PATIENCE)
        return ended


def main():
    stage, failed = Stage(), []
    try:
        for check in CHECKS:
            began = time.monotonic()
            try:
                check(stage)
            except Exception:
                traceback.print_exc()
                failed.append(check.__name__)
            print(f"{check.__name__}: {time.monotonic() - began:.1f} s", flush=True)
    finally:
        ended = stage.strike()
    with open(f"{FOLDER}/log", encoding="utf-8") as file:
        log = file.read()
    if ended or "panicked" in log or "a bug in" in log:
        failed.append(f"ringway, which ended with {ended}")
    for what in SKIPPED:
        print(f"skipped: {what} is missing")
    if failed:
        print(log[-3000:])
        sys.exit(f"failed: {', '.join(failed)}")


main()
