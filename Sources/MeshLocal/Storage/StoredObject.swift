package import Foundation
package import MeshKubernetes
import Synchronization

/// Where an object is kept. Every version of a kind shares one place.
package struct ObjectKey: Hashable, Sendable, CustomStringConvertible {
    /// `pods` or `deployments.apps`.
    package var resource: String
    /// Empty for a kind without namespaces.
    package var namespace: String
    package var name: String

    package init(resource: String, namespace: String, name: String) {
        self.resource = resource
        self.namespace = namespace
        self.name = name
    }

    package init(_ kind: ResourceKind, namespace: String?, name: String) {
        self.init(resource: kind.storageName, namespace: kind.isNamespaced ? namespace ?? "" : "", name: name)
    }

    package var description: String { namespace.isEmpty ? "\(resource)/\(name)" : "\(resource)/\(namespace)/\(name)" }
}

extension ResourceKind {
    /// The plural with its group, as `kubectl` and CustomResourceDefinitions write it.
    package var storageName: String { group.isEmpty ? plural : "\(plural).\(group)" }
}

/// An object at one version. Never changed, so that readers and watchers share it, and its text is made once for all of them.
package final class StoredObject: Sendable {
    package let key: ObjectKey
    package let version: Int64
    package let object: KubernetesObject
    private let text: Mutex<Data?>

    init(key: ObjectKey, version: Int64, object: KubernetesObject, data: Data? = nil) {
        self.key = key
        self.version = version
        self.object = object
        self.text = Mutex(data)
    }

    /// The object as JSON.
    package var data: Data {
        text.withLock { text in
            if let text { return text }
            let made = object.json.data()
            text = made
            return made
        }
    }
}

/// One change of the storage, as every watcher of its kind learns of it.
package struct StoreEvent: Sendable {
    package var change: WatchEvent.Change
    /// The object after the change; for a deletion its last state under the version of the deletion.
    package var stored: StoredObject
    /// The object before the change, which decides what a watcher with a selector is told.
    var previous: StoredObject?
}

/// What a write requires of the object that it replaces.
package enum WriteExpectation: Sendable, Equatable {
    case absent
    case version(Int64)
}

/// Why the storage refused a write.
package enum StoreError: Error, Sendable, Equatable {
    case exists
    case missing
    /// Another write was faster; the object has this version now.
    case conflict(current: Int64)
    /// The watch asked for changes older than what is remembered.
    case expired(oldest: Int64, current: Int64)
    /// The database could not keep the change; nothing of it remains.
    case database(String)
}
