"""nginx as a TLS reverse proxy in front of another server; this program writes its configuration, starts it, and ends it.

Arguments: certificate, key, port of the server behind, folder for nginx's files. Nothing needs privileges. nginx is handed
its listening socket as on an upgrade of its binary (variable NGINX), so that the system can choose the port; with that, 1.22
crashes without a master process.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location / {{
            proxy_pass http://127.0.0.1:{behind};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header Host $http_host;
            proxy_read_timeout 300s;
        }}
    }}
}}
"""


def main() -> None:
    certificate, key, behind, folder = sys.argv[1:]
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        port = listener.getsockname()[1]
        configuration = Path(folder) / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(
            certificate=certificate, key=key, behind=behind, folder=folder, port=port))
        process = subprocess.Popen(
            ["nginx", "-p", folder, "-c", configuration, "-e", f"{folder}/error.log"], stdin=subprocess.DEVNULL,
            pass_fds=[listener.fileno()], env={**os.environ, "NGINX": f"{listener.fileno()};"})
    try:
        print(json.dumps({"tls": port}), flush=True)
        sys.stdin.read()
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
