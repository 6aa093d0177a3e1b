import MeshKubernetes

/// Tells the user what a controller did or could not do, as an Event on the object. The same news again only counts.
struct EventRecorder: Sendable {
    var api: LocalAPI
    var component: String

    func record(_ object: KubernetesObject, isWarning: Bool, reason: String, _ message: String) async {
        let namespace = object.namespace ?? "default"
        let text = String(message.prefix(1_024))
        let name =
            String(object.name.prefix(200)) + "."
            + String(StableHash.value("\(component)/\(reason)/\(text)/\(object.uid)"), radix: 16)
        let now = KubernetesTime.now
        // An event that cannot be kept is not worth failing for.
        if let present = try? await api.get(.event, namespace: namespace, name: name) {
            let count = present.json["count"]?.int ?? 1
            _ = try? await api.patch(
                .event, namespace: namespace, name: name, subresource: nil,
                .merge(["count": .int(Int64(count &+ 1)), "lastTimestamp": .string(now.description)]))
            return
        }
        _ = try? await api.create(
            .event,
            KubernetesObject([
                "apiVersion": "v1", "kind": "Event",
                "metadata": ["name": .string(name), "namespace": .string(namespace)],
                "involvedObject": [
                    "apiVersion": .string(object.apiVersion), "kind": .string(object.kind),
                    "name": .string(object.name),
                    "namespace": .string(namespace), "uid": .string(object.uid),
                    "resourceVersion": .string(object.resourceVersion),
                ],
                "reason": .string(reason), "message": .string(text), "type": isWarning ? "Warning" : "Normal",
                "count": 1,
                "firstTimestamp": .string(now.description), "lastTimestamp": .string(now.description), "eventTime": nil,
                "source": ["component": .string(component)], "reportingComponent": .string(component),
                "reportingInstance": .string(api.settings.nodeName),
            ]))
    }
}

/// FNV-1a in 64 bits: the same for the same text in every run, which `Hasher` is not.
enum StableHash {
    static func value(_ text: String) -> UInt64 {
        text.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01b3 }
    }

    /// Ten characters that are valid in a name and spell nothing.
    static func name(_ text: String) -> String {
        let alphabet = Array("bcdfghjklmnpqrstvwxz2456789")
        var rest = value(text)
        return String(
            (0..<10).map { _ in
                let (quotient, remainder) = rest.quotientAndRemainder(dividingBy: UInt64(alphabet.count))
                rest = quotient
                return alphabet[Int(remainder)]
            })
    }
}
