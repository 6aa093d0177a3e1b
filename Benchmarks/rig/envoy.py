"""Envoy as a proxy: no more filters than the protocol needs, its defaults otherwise."""
import json

from . import certificates

TYPE = "type.googleapis.com/envoy.extensions."


def tls(folder, side, peer):
    """The context of one side: its own certificate, and the one SPIFFE ID that it accepts."""
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{"certificate_chain": {"filename": f"{folder}/{side}.pem"},
                              "private_key": {"filename": f"{folder}/{side}.key"}}],
        "validation_context": {
            "trusted_ca": {"filename": f"{folder}/ca.pem"},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}]},
    }


def listener(folder, service, port, secure):
    if service.protocol == "opaque":
        network = {"name": "tcp", "typed_config": {
            "@type": TYPE + "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "tcp", "cluster": service.name}}
    else:
        network = {"name": "http", "typed_config": {
            "@type": TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "http",
            "codec_type": "HTTP1" if service.protocol == "http1" else "HTTP2",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": service.name, "timeout": "0s"}}]}]},
            "http_filters": [{"name": "router", "typed_config": {"@type": TYPE + "filters.http.router.v3.Router"}}]}}
    chain = {"filters": [network]}
    if secure:
        chain["transport_socket"] = {"name": "tls", "typed_config": {
            "@type": TYPE + "transport_sockets.tls.v3.DownstreamTlsContext", "require_client_certificate": True,
            "common_tls_context": tls(folder, "server", certificates.CLIENT)}}
    return {"name": service.name, "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "tcp_backlog_size": 4096, "filter_chains": [chain]}


def cluster(folder, service, port, secure):
    made = {
        "name": service.name, "type": "STATIC", "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [{"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}]},
        "load_assignment": {"cluster_name": service.name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]}]},
    }
    if service.protocol in ("http2", "grpc"):
        made["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": TYPE + "upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}
    if secure:
        made["transport_socket"] = {"name": "tls", "typed_config": {
            "@type": TYPE + "transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": tls(folder, "client", certificates.SERVER)}}
    return made


def configuration(folder, services, listeners, clusters, secure_listener, secure_cluster):
    return json.dumps({"static_resources": {
        "listeners": [listener(folder, service, listeners[service.name], secure_listener) for service in services],
        "clusters": [cluster(folder, service, clusters[service.name], secure_cluster) for service in services],
    }})
