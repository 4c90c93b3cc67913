"""The proxies of the fault drill: what each is told about failing backends.

All look for themselves every 500 ms with 400 ms of patience (two good looks bring a backend up,
two bad ones take it down), wait 1 s for an answer, and ask another backend where a request has
failed. nginx as it is given away has no such looks: it judges by failed requests alone. README.md
says setting by setting why this is equal, and what cannot be.
"""

import os
import re
import time

from programs import Haproxy, Nginx, Ringway

NGINX = """\
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
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_max_temp_file_size 0;
      proxy_set_header Connection "";
      proxy_connect_timeout 3s; proxy_read_timeout 1s;
      proxy_next_upstream error timeout http_500 http_502 http_503 http_504;
    }}
  }}
}}
"""

HAPROXY = """\
global
  nbthread 1
  maxconn {haproxy_connections}
defaults
  mode http
  http-reuse always
  option http-keep-alive
  timeout client 60s
  timeout connect 3s
  timeout server 1s
  timeout check 400ms
  retries 3
  option redispatch 1
  retry-on conn-failure empty-response response-timeout 502 503 504
frontend web
  bind 127.0.0.1:{port} backlog 4096
  default_backend app
backend app
  balance roundrobin
  option httpchk GET /health
  default-server check inter 500ms rise 2 fall 2
  default-server observe layer7 error-limit 3 on-error mark-down
  {servers}
"""

RINGWAY = """\
[listener.web]
bind = "127.0.0.1:{port}"
pool = "app"
{log}
[pool.app]
backends = [{servers}]
health = {{ interval = "500ms", timeout = "400ms", fall = 2 }}
passive = {{ statuses = [500, 502, 503, 504], eject = "1s" }}
retry = {{ on = ["connect-failure", "reset-before-response", "backend-down", "timeout", "502",
               "503", "504"]{hedge} }}
timeouts = {{ response = "1s" }}
{balance}
"""


class DrilledNginx(Nginx):
    template, server = NGINX, "server {host}:{port} max_fails=3 fail_timeout=1s;"
    takes_out = re.compile(rb"server temporarily disabled")


class DrilledHaproxy(Haproxy):
    template = HAPROXY
    takes_out = re.compile(rb"Server app/s\d+ is DOWN")


class DrilledRingway(Ringway):
    hedges = False

    @property
    def template(self):
        hedge = ', hedge = {{ after = "p95", max = 0.05 }}' if self.hedges else ""
        return RINGWAY.replace("{hedge}", hedge)

    takes_out = re.compile(rb"backend_down|backend_ejected")


class Ear:
    """Hears, from now on, when a proxy first says in its log that it takes a backend out."""

    def __init__(self, proxy):
        self.file = open(proxy.child.log, "rb")
        self.file.seek(0, os.SEEK_END)
        self.takes_out, self.text, self.heard = proxy.takes_out, b"", None

    def listen(self, seconds):
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            self.text += self.file.read()
            if self.heard is None and self.takes_out.search(self.text):
                self.heard = now
            time.sleep(min(0.01, until - now))

    def close(self):
        self.file.close()
