"""The programs of a run: how each is configured and started.

One nginx is the origin on the load core: three listeners = three backends, static bodies (the
smallest from memory, so that the core has room), keep-alive without bound. Every proxy is alone on
its own free loopback port on the proxy core. The work is made equal: each proxy adds
X-Forwarded-For, hands on the client's Host, keeps connections to the backends and logs nothing.
Ringway runs with its shipped defaults and the smallest file there is.
"""

import os
import random
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass

import network
from cases import BODIES
from children import Child

BACKENDS = 3
_ports = random.Random()

ORIGIN = """\
daemon off; worker_processes 1; pid {dir}/origin.pid; error_log stderr warn; {user}
events {{ worker_connections {connections}; }}
http {{
  access_log off; default_type application/octet-stream; tcp_nopush on;
  keepalive_timeout 1h; keepalive_requests 1000000000;
  open_file_cache max=16 inactive=1h; open_file_cache_valid 1h;
  client_body_temp_path {dir}/o1; proxy_temp_path {dir}/o2; fastcgi_temp_path {dir}/o3;
  uwsgi_temp_path {dir}/o4; scgi_temp_path {dir}/o5;
  server {{
    {listens}
    {unix_listens}
    {tls_listens}
    {h2_listens}
    ssl_certificate {dir}/tls.pem; ssl_certificate_key {dir}/tls.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    root {dir}/bodies; output_buffers 1 64k;
    location = /128b {{ return 200 "{small}"; }}
    location = /1m {{ sendfile on; }}
    location = /seen {{
      return 200 "$server_port|$http_x_forwarded_for|$http_connection|$http_host";
    }}
    location = /accepted {{ stub_status; }}
  }}
}}
"""

NGINX = """\
{load_stream}
daemon off; worker_processes 1; pid {dir}/{name}.pid; error_log stderr warn; {user}
events {{ worker_connections {connections}; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {dir}/n1; proxy_temp_path {dir}/n2; fastcgi_temp_path {dir}/n3;
  uwsgi_temp_path {dir}/n4; scgi_temp_path {dir}/n5;
  upstream app {{
    {servers}
    keepalive 256; keepalive_requests 1000000000;
  }}
  upstream apps {{
    {tls_servers}
    keepalive 256; keepalive_requests 1000000000;
  }}
  server {{
    listen {host}:{back_port} backlog=4096;
    location / {{
      proxy_pass https://apps; proxy_http_version 1.1; proxy_max_temp_file_size 0;
      proxy_ssl_protocols TLSv1.2 TLSv1.3;
      proxy_set_header Connection ""; proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
  server {{
    listen {host}:{port} backlog=4096;
    listen {host}:{tls_port} ssl http2 backlog=4096;
    ssl_certificate {dir}/tls.pem; ssl_certificate_key {dir}/tls.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_max_temp_file_size 0;
      proxy_set_header Connection ""; proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
{stream}
"""

NGINX_STREAM = """\
stream {{
  upstream app {{ {servers} }}
  server {{ listen {host}:{tcp_port} backlog=4096; proxy_pass app; }}
}}
"""

HAPROXY = """\
global
  nbthread 1
  maxconn {haproxy_connections}
  maxpipes 64
defaults
  mode http
  http-reuse always
  option forwardfor
  option http-keep-alive
  timeout client 60s
  timeout server 60s
  timeout connect 3s
frontend web
  bind {host}:{port} backlog 4096
  bind {host}:{tls_port} ssl crt {dir}/tls.both alpn h2,http/1.1 backlog 4096
  default_backend app
frontend back
  bind {host}:{back_port} backlog 4096
  default_backend apps
frontend h2
  bind {host}:{h2_port} backlog 4096
  default_backend apps2
backend app
  balance roundrobin
  {servers}
backend apps
  balance roundrobin
  {tls_servers}
backend apps2
  balance roundrobin
  {h2_servers}
defaults
  mode tcp
  option splice-auto
  timeout client 60s
  timeout server 60s
  timeout connect 3s
frontend tcp
  bind {host}:{tcp_port} backlog 4096
  default_backend bytes
backend bytes
  balance roundrobin
  {servers}
"""

RINGWAY = """\
[listener.web]
bind = "{host}:{port}"
pool = "app"
{log}
{tls}
{tcp}
[pool.app]
backends = [{servers}]
{balance}
"""

RINGWAY_TLS = """\
[listener.tls]
bind = "{host}:{tls_port}"
pool = "app"
tls = {{ certificates = [{{ cert = "{dir}/tls.pem", key = "{dir}/tls.key" }}] }}
[listener.back]
bind = "{host}:{back_port}"
pool = "apps"
[pool.apps]
backends = [{tls_servers}]
tls = {{ verify = false }}
"""

RINGWAY_H2 = """\
[listener.h2]
bind = "{host}:{h2_port}"
pool = "apps2"
[pool.apps2]
backends = [{h2_servers}]
protocol = "h2c"
"""

RINGWAY_TCP = """\
[listener.tcp]
bind = "{host}:{tcp_port}"
mode = "tcp"
pool = "bytes"
[pool.bytes]
backends = [{servers}]
"""


@dataclass(frozen=True)
class Variant:
    """What a Ringway does besides, or otherwise; it is held against the same one that does not."""

    suffix: str = ""  # of its name
    against: str = ""  # what a figure calls the one without
    log: bool = False
    balance: str = ""
    unix: bool = False  # its backends are Unix sockets


PLAIN = Variant()
LOG = Variant("-log", "no log", log=True)
UNIX = Variant("-unix", "loopback", unix=True)
# A hash over one client and one path knows only one backend: that it picks is measured, no spread.
BALANCES = [
    *(Variant(f"-{name}", "round robin", balance=f'balance = "{name}"\n') for name in
      ("random", "least-connections", "least-response-time", "ip-hash")),
    Variant("-hash-uri", "round robin", balance='balance = { hash = "uri" }\n'),
]


def free_port():
    """A port below the ephemeral range, so that no outgoing connection takes it meanwhile."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        first = int(file.read().split()[0])
    for _ in range(1000):
        port = _ports.randrange(10_000, max(first, 20_000))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise RuntimeError("no free port on loopback")


def answers(host, port):
    """Whether a connection can be made."""
    try:
        socket.create_connection((host, port), 1).close()
        return True
    except OSError:
        return False


class Program:
    """One program that can be started anew at will, each time on new ports."""

    patience = 10  # seconds until its port must answer

    @property
    def host(self):
        """The address on which it listens."""
        return network.proxies

    def __init__(self, name, kind, directory, core, descriptors):
        self.name, self.kind, self.directory, self.core = name, kind, directory, core
        self.connections = min(16_384, descriptors)
        self.haproxy_connections = min(9_000, (descriptors - 200) // 2)
        self.child = self.port = self.tls_port = self.back_port = None
        self.h2_port = self.tcp_port = None
        self.has_tcp = False  # whether it has a listener of TCP
        self.text = ""  # the configuration as it was last written
        self.log = None  # path of its access log, if it writes one

    def write(self, template, **values):
        user = "user root;" if os.geteuid() == 0 else ""
        self.text = template.format(
            dir=self.directory, name=self.name, host=self.host, port=self.port, user=user,
            tls_port=self.tls_port, back_port=self.back_port, h2_port=self.h2_port,
            tcp_port=self.tcp_port,
            connections=self.connections, haproxy_connections=self.haproxy_connections, **values,
        )
        path = os.path.join(self.directory, f"{self.name}.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.text)
        return path

    def start(self, *arguments):
        """Starts, and waits until the port answers; a port lost to a race is drawn again."""
        self.stop()
        for attempt in range(3):
            command = [*self.into(), *self.command(*arguments)]
            self.child = Child(self.name, command, self.core, self.directory)
            until = time.monotonic() + self.patience
            while time.monotonic() < until and not self.child.ended():
                if answers(self.host, self.port):
                    return
                time.sleep(0.02)
            words = self.child.last_words()
            self.stop()
            if attempt == 2 or "in use" not in words:
                raise RuntimeError(f"{self.name} did not start ({' '.join(command)}):\n{words}")

    def into(self):
        """What takes its command into its network."""
        return network.into

    def stop(self):
        if self.child:
            self.child.stop()
            self.child = None

    def draw_ports(self):
        """Plain; TLS in front; plain in front and TLS, or HTTP/2, to the backends; TCP."""
        ports = (free_port() for _ in range(5))
        self.port, self.tls_port, self.back_port, self.h2_port, self.tcp_port = ports


class Origin(Program):
    @property
    def host(self):
        return network.loader

    def into(self):
        return []

    def __init__(self, directory, core, descriptors):
        super().__init__("origin", "origin", directory, core, descriptors)
        bodies = os.path.join(directory, "bodies")
        os.mkdir(bodies)
        make_certificate(directory)
        self.small = body(BODIES["128b"]).decode().replace("\n", "\\n")
        for name, size in BODIES.items():
            with open(os.path.join(bodies, name), "wb") as file:
                file.write(body(size))

    def command(self):
        self.ports = [free_port() for _ in range(BACKENDS)]
        self.tls_ports = [free_port() for _ in range(BACKENDS)]
        self.h2_ports = [free_port() for _ in range(BACKENDS)]
        self.files = [os.path.join(self.directory, f"o{number}.sock") for number in range(BACKENDS)]
        for file in self.files:
            if os.path.exists(file):
                os.remove(file)
        self.port = self.ports[0]
        listens = " ".join(f"listen {self.host}:{port} backlog=4096;" for port in self.ports)
        tls = " ".join(f"listen {self.host}:{port} ssl backlog=4096;" for port in self.tls_ports)
        h2 = " ".join(f"listen {self.host}:{port} http2 backlog=4096;" for port in self.h2_ports)
        unix = " ".join(f"listen unix:{file} backlog=4096;" for file in self.files)
        path = self.write(
            ORIGIN, listens=listens, unix_listens=unix, tls_listens=tls, h2_listens=h2,
            small=self.small)
        return [tool("nginx"), "-e", "stderr", "-c", path]

    def accepted(self):
        """Connections that all backends together have accepted so far (one of them is ours)."""
        page = get(self, "/accepted")[1].decode()
        return int(page.splitlines()[2].split()[0])


class Nginx(Program):
    template, server = NGINX, "server {host}:{port};"

    def command(self, origin):
        self.draw_ports()
        servers, tls = (
            " ".join(self.server.format(host=origin.host, port=port) for port in ports)
            for ports in (origin.ports, tls_ports(origin))
        )
        built = output([tool("nginx"), "-V"])
        self.has_tcp = "--with-stream" in built and self.template is NGINX
        stream = NGINX_STREAM.format(
            host=self.host, servers=servers, tcp_port=self.tcp_port) if self.has_tcp else ""
        load = "load_module modules/ngx_stream_module.so;" * ("--with-stream=dynamic" in built)
        path = self.write(self.template, servers=servers, tls_servers=tls, stream=stream,
                          load_stream=load)
        return [tool("nginx"), "-e", "stderr", "-c", path]


class Haproxy(Program):
    template = HAPROXY

    def command(self, origin):
        self.draw_ports()
        servers, tls, h2 = (
            "\n  ".join(
                f"server s{number} {origin.host}:{port}{more}" for number, port in enumerate(ports)
            )
            for ports, more in ((origin.ports, ""), (tls_ports(origin), " ssl verify none"),
                                (h2_ports(origin), " proto h2"))
        )
        self.has_tcp = self.template is HAPROXY
        path = self.write(self.template, servers=servers, tls_servers=tls, h2_servers=h2)
        return [tool("haproxy"), "-db", "-f", path]


class Ringway(Program):
    template = RINGWAY

    def __init__(self, name, directory, core, descriptors, binary, driver=None, variant=PLAIN):
        super().__init__(name + variant.suffix, "ringway", directory, core, descriptors)
        self.binary, self.driver, self.variant, self.plain = binary, driver, variant, name
        self.log = os.path.join(directory, f"{self.name}.access.log") if variant.log else None
        # Several may run at once: where the flag exists, each gets an admin port of its own.
        self.has_tls = "--tls-self-signed" in output([binary, "proxy", "--help"])
        schema = output([binary, "schema"])
        self.has_h2, self.knows_tcp = "h2c" in schema, '"send-proxy-protocol"' in schema
        self.has_admin = "--admin" in output([binary, "--help"]) + output([binary, "run", "--help"])

    def command(self, origin):
        """The core is written as a range: `--cores 2` would mean any two."""
        self.draw_ports()
        servers, tls_servers = (
            ", ".join(f'"{origin.host}:{port}"' for port in ports)
            for ports in (origin.ports, tls_ports(origin))
        )
        if self.variant.unix:
            servers = ", ".join(f'"unix:{file}"' for file in origin.files)
        self.has_tcp = self.knows_tcp and self.template is RINGWAY
        tcp = RINGWAY_TCP.format(
            host=self.host, tcp_port=self.tcp_port, servers=servers) if self.has_tcp else ""
        # One of before is measured without.
        tls = "" if not (self.has_tls and tls_ports(origin)) else RINGWAY_TLS.format(
            dir=self.directory, host=self.host, tls_port=self.tls_port, back_port=self.back_port,
            tls_servers=tls_servers,
        )
        if self.has_h2 and h2_ports(origin):
            h2_servers = ", ".join(f'"{origin.host}:{port}"' for port in origin.h2_ports)
            tls += RINGWAY_H2.format(
                host=self.host, h2_port=self.h2_port, h2_servers=h2_servers)
        log = ""
        if self.log:
            log = f'access-log = {{ path = "{self.log}", format = "json" }}\n'
            if os.path.exists(self.log):
                os.remove(self.log)  # a minute's lines are a gigabyte
        path = self.write(
            self.template, servers=servers, log=log, tls=tls, tcp=tcp,
            balance=self.variant.balance)
        words = [self.binary, "run", "-c", path, "--cores", f"{self.core}-{self.core}"]
        if self.has_admin:
            self.admin = ("127.0.0.1", free_port())
            words += ["--admin", "{}:{}".format(*self.admin)]
        return words + (["--driver", self.driver] if self.driver else [])


class Floor(Program):
    """What Linux alone asks for a request (floor.c): nothing is checked, no field is added. `words`
    are what it tries (`+` between several)."""

    def __init__(self, name, directory, core, descriptors, words=""):
        super().__init__(name, "floor", directory, core, descriptors)
        self.binary = os.path.join(directory, name)
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "floor.c")
        compiled(source, self.binary, *(f"-D{word}" for word in words.split("+") if word))

    def command(self, origin):
        self.port = free_port()
        return [self.binary, self.host, str(self.port), origin.host, *map(str, origin.ports)]


def compiled(source, target, *flags):
    """Compiles a C file; needs gcc."""
    done = subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", *flags, "-o", target, source],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60,
                          stderr=subprocess.STDOUT, check=False, text=True)
    if done.returncode:
        raise RuntimeError(f"{source} does not compile:\n{done.stdout}")


class Fleet:
    """The origin and all proxies of a run."""

    def __init__(self, origin, proxies):
        self.origin, self.proxies = origin, proxies

    def restart(self):
        for proxy in self.proxies:
            proxy.stop()
        for proxy in self.proxies:
            proxy.start(self.origin)

    def programs(self):
        return [program for program in (self.origin, *self.proxies) if program.child]

    def pids(self):
        return [pid for program in self.programs() for pid in program.child.pids()]

    def unequal(self):
        """Sentences about work that a proxy does not do as it should; wrong bodies raise."""
        found = []
        for proxy in self.proxies:
            for name, size in BODIES.items():
                status, content = get(proxy, f"/{name}")
                if status != 200 or content != body(size):
                    raise RuntimeError(f"{proxy.name}: wrong answer to /{name}: {status}")
                if proxy.has_tcp and get(proxy, f"/{name}", proxy.tcp_port) != (200, body(size)):
                    raise RuntimeError(f"{proxy.name}: wrong answer to /{name} over TCP")
            pages = [get(proxy, "/seen")[1].decode().split("|") for _ in range(12)]
            hashes = proxy.kind == "ringway" and "hash" in proxy.variant.balance
            # Those at Unix sockets all have no port.
            alike = hashes or proxy.kind == "ringway" and proxy.variant.unix
            if len({page[0] for page in pages}) != BACKENDS and not alike:
                found.append(f"{proxy.name} does not go round all {BACKENDS} backends")
            if any(page[1] != network.loader for page in pages) and proxy.kind != "floor":
                found.append(f"{proxy.name} does not set X-Forwarded-For")
            if any(page[2].lower() == "close" for page in pages):
                found.append(f"{proxy.name} does not keep connections to the backends")
            if any(page[3] != f"{proxy.host}:{proxy.port}" for page in pages):
                found.append(f"{proxy.name} does not hand on the client's Host")
            if proxy.log and not _wait_for_bytes(proxy.log):
                found.append(f"{proxy.name} writes no access log")
        return found


def _wait_for_bytes(path):
    """Whether a file has something in it within two seconds (a log is flushed now and then)."""
    until = time.monotonic() + 2
    while time.monotonic() < until:
        if os.path.exists(path) and os.path.getsize(path):
            return True
        time.sleep(0.05)
    return False


def h2_ports(origin):
    """Those that speak HTTP/2 without TLS; the drill's origins have none."""
    return getattr(origin, "h2_ports", [])


def tls_ports(origin):
    """Those of its backends that speak TLS; the drill's origins have none."""
    return getattr(origin, "tls_ports", [])


def make_certificate(directory):
    """ECDSA P-256, signed by itself, as two files and as one."""
    cert, key, both = (os.path.join(directory, f"tls.{end}") for end in ("pem", "key", "both"))
    subprocess.run(
        [tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", cert, "-days", "30", "-subj", "/CN=load.test",
         "-addext", "subjectAltName=DNS:load.test"],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    with open(both, "w", encoding="ascii") as file:
        for part in (cert, key):
            with open(part, encoding="ascii") as of:
                file.write(of.read())


def body(size):
    return (b"0123456789abcdef" * (size // 16 + 1))[: size - 1] + b"\n"


def get(program, path, port=None):
    """One GET on a connection of its own: (status, body)."""
    host, port = program.host, port or program.port
    with socket.create_connection((host, port), 5) as stream:
        stream.settimeout(5)
        ask = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        stream.sendall(ask.encode())
        answer = b""
        while chunk := stream.recv(1 << 20):
            answer += chunk
    head, _, content = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        raise RuntimeError(f"no HTTP answer on {host}:{port}: {answer[:80]!r}")
    return int(head.split()[1]), content


def tool(name):
    """Path of a program; Debian keeps two of them where a plain user's PATH does not look."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def output(command):
    """What a short command prints, both streams, whatever its exit status."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=10, check=False,
        )
        return done.stdout.decode("utf-8", "replace").strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
