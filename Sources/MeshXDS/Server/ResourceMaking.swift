internal import MeshAddress
internal import MeshCore

/// Core's values as resources that are encoded once and sent to many.
extension EncodedResource {
    static func make(_ destination: Destination, _ address: SocketAddress) -> EncodedResource {
        EncodedResource(
            .destination, name: address.description,
            message: ResourceEncoding.bytes(ResourceEncoding.encode(destination)))
    }

    static func make(_ service: Service) -> EncodedResource {
        EncodedResource(
            .service, name: service.name.description, message: ResourceEncoding.bytes(ResourceEncoding.encode(service)))
    }

    static func make(_ endpoint: Endpoint) -> EncodedResource {
        EncodedResource(
            .endpoint, name: endpoint.id, message: ResourceEncoding.bytes(ResourceEncoding.encode(endpoint)))
    }

    static func make(_ configuration: SidecarConfiguration, _ pod: ObjectName) -> EncodedResource {
        EncodedResource(
            .sidecar, name: pod.description, message: ResourceEncoding.bytes(ResourceEncoding.encode(configuration)))
    }

    static func make(_ bundle: TrustBundle) -> EncodedResource {
        EncodedResource(
            .trustBundle, name: bundle.trustDomain, message: ResourceEncoding.bytes(ResourceEncoding.encode(bundle)))
    }
}
