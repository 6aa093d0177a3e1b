"""haproxy as a proxy."""
from . import certificates


def configuration(folder, side, services, listeners, upstreams, pair):
    # Two descriptors a connection, within the 20,000 that a machine of CI grants.
    lines = ["global", "  nbthread 1", "  maxconn 4000", "  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256",
             "  ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256", "  tune.h2.max-concurrent-streams 1000",
             "defaults", "  timeout connect 5s", "  timeout client 10m", "  timeout server 10m"]
    for service in services:
        is_tcp, is_http2 = service.protocol == "opaque", service.protocol in ("http2", "grpc")
        mode = f"  mode {'tcp' if is_tcp else 'http'}"
        splice = ["  option splice-auto"] if is_tcp else []
        bind = f"  bind 127.0.0.1:{listeners[service.name]} backlog 4096"
        server = f"  server one 127.0.0.1:{upstreams[service.name]}"
        if not is_tcp:
            server += " pool-max-conn 2000"
        if pair and side == "in":
            bind += f" ssl crt {folder}/named.both.pem ca-file {folder}/ca.pem verify required ssl-min-ver TLSv1.3"
            bind += " alpn h2" if is_http2 else ""
        elif is_http2:
            bind += " proto h2"
        if pair and side == "out":
            server += (f" ssl crt {folder}/client.both.pem ca-file {folder}/ca.pem verify required verifyhost {certificates.NAME} "
                       f"sni str({certificates.NAME}) ssl-min-ver TLSv1.3")
            server += " alpn h2" if is_http2 else ""
        elif is_http2:
            server += " proto h2"
        reuse = [] if is_tcp else ["  http-reuse always"]
        lines += [f"frontend {service.name}_in", mode, *splice, bind, f"  default_backend {service.name}_out",
                  f"backend {service.name}_out", mode, *splice, *reuse, server]
    return "\n".join(lines) + "\n"
