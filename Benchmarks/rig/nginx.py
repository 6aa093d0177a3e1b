"""nginx: as the backend of HTTP/1, and as a proxy."""
from . import certificates

MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
CIPHER = "Ciphersuites TLS_AES_128_GCM_SHA256"


def backend(folder, ports):
    """What the rows of HTTP/1 ask for, on every one of the ports, at every address of this network namespace."""
    (folder / "www").mkdir(exist_ok=True)
    (folder / "www" / "10k").write_bytes(b"x" * 10 * 1024)
    (folder / "www" / "1m").write_bytes(b"x" * 1024 * 1024)
    listen = " ".join(f"listen 0.0.0.0:{port} backlog=4096;" for port in ports)
    return f"""
user root; worker_processes 1; worker_rlimit_nofile 20000; daemon off; pid {folder}/backend.pid; error_log {folder}/backend.log error;
events {{ worker_connections 19000; multi_accept on; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600; tcp_nodelay on; tcp_nopush on; sendfile on;
  open_file_cache max=10; default_type text/plain;
  server {{ {listen} root {folder}/www; location = / {{ return 200 "{'x' * 100}"; }} location / {{ }} }}
}}
"""


def configuration(folder, side, services, listeners, upstreams, pair):
    http, stream = [], []
    for service in services:
        text = server(folder, service, listeners[service.name], upstreams[service.name], pair and side)
        (stream if service.protocol == "opaque" else http).append(text)
    lines = [f"load_module {MODULE};"] if stream else []
    lines += [
        f"user root; worker_processes 1; worker_rlimit_nofile 20000; daemon off; pid {folder}/nginx-{side}.pid;",
        f"error_log {folder}/nginx-{side}.log error;",
        "events { worker_connections 16384; multi_accept on; }",
    ]
    if http:
        lines += ["http { access_log off; keepalive_requests 1000000000; keepalive_timeout 600; tcp_nodelay on;",
                  "http2_max_concurrent_streams 1000; client_max_body_size 0; proxy_max_temp_file_size 0;", *http, "}"]
    if stream:
        lines += ["stream {", *stream, "}"]
    return "\n".join(lines)


def server(folder, service, port, upstream, secured_side):
    kept = "" if service.protocol == "opaque" else "keepalive 2000; keepalive_requests 1000000000; keepalive_timeout 600;"
    parts = [f"upstream {service.name}_up {{ server 127.0.0.1:{upstream}; {kept} }}"]
    flags = (" ssl" if secured_side == "in" else "") + (" http2" if service.protocol in ("http2", "grpc") else "")
    body = [f"listen 127.0.0.1:{port}{flags} backlog=4096;"]
    if secured_side == "in":
        body.append(f"ssl_certificate {folder}/named.pem; ssl_certificate_key {folder}/named.key; ssl_protocols TLSv1.3; "
                    f"ssl_verify_client on; ssl_client_certificate {folder}/ca.pem; ssl_conf_command {CIPHER};")
    module = "grpc" if service.protocol in ("http2", "grpc") else "proxy"
    if secured_side == "out":
        body.append(f"{module}_ssl_certificate {folder}/client.pem; {module}_ssl_certificate_key {folder}/client.key; "
                    f"{module}_ssl_trusted_certificate {folder}/ca.pem; {module}_ssl_verify on; "
                    f"{module}_ssl_name {certificates.NAME}; {module}_ssl_protocols TLSv1.3; {module}_ssl_conf_command {CIPHER};")
    if service.protocol == "opaque":
        body.append(f"{'proxy_ssl on; ' if secured_side == 'out' else ''}proxy_pass {service.name}_up;")
    elif module == "grpc":
        scheme = "grpcs" if secured_side == "out" else "grpc"
        body.append(f"location / {{ grpc_pass {scheme}://{service.name}_up; }}")
    else:
        scheme = "https" if secured_side == "out" else "http"
        body.append(f"location / {{ proxy_pass {scheme}://{service.name}_up; proxy_http_version 1.1; "
                    'proxy_set_header Connection ""; proxy_set_header Host $host; }')
    return "\n".join(parts + ["server {", *body, "}"])
