import Foundation
import GRDB
import MeshKubernetes

/// The SQLite file under the data directory: the objects, and a few values such as the token key.
///
/// It is in WAL mode with `synchronous = NORMAL`: what is committed survives the death of the process; a power failure may
/// lose the last moments but leaves the file whole.
final class ObjectDatabase: Sendable {
    private let queue: DatabaseQueue

    /// Opens or makes `DIRECTORY/objects.sqlite`, readable by its owner alone.
    init(directory: String) throws {
        try FileManager.default.createDirectory(
            atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        let path = "\(directory)/objects.sqlite"
        // SQLite gives its journal the mode of the database file, so the file has to exist with that mode first.
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw StoreError.database("cannot open \(path): \(String(cString: strerror(errno)))")
        }
        fchmod(descriptor, 0o600)
        close(descriptor)
        var configuration = Configuration()
        configuration.prepareDatabase { database in
            try database.execute(sql: "PRAGMA journal_mode = WAL")
            try database.execute(sql: "PRAGMA synchronous = NORMAL")
        }
        queue = try DatabaseQueue(path: path, configuration: configuration)
        try queue.write { database in
            try database.execute(
                sql: """
                    CREATE TABLE IF NOT EXISTS object (
                        resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL,
                        value BLOB NOT NULL, PRIMARY KEY (resource, namespace, name)
                    );
                    CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL);
                    """)
        }
    }

    func objects() throws -> [(key: ObjectKey, version: Int64, data: Data)] {
        try queue.read { database in
            try Row.fetchAll(database, sql: "SELECT resource, namespace, name, version, value FROM object").map { row in
                (ObjectKey(resource: row[0], namespace: row[1], name: row[2]), row[3], row[4])
            }
        }
    }

    /// Keeps all changes or none. The highest version is kept too, so that the version of a deletion is not given again.
    func commit(_ events: [StoreEvent]) throws {
        try queue.write { database in
            let upsert = try database.cachedStatement(
                sql: """
                    INSERT INTO object (resource, namespace, name, version, value) VALUES (?, ?, ?, ?, ?)
                    ON CONFLICT (resource, namespace, name) DO UPDATE SET version = excluded.version, value = excluded.value
                    """)
            let delete = try database.cachedStatement(
                sql: "DELETE FROM object WHERE resource = ? AND namespace = ? AND name = ?")
            for event in events {
                let key = event.stored.key
                if event.change == .deleted {
                    try delete.execute(arguments: [key.resource, key.namespace, key.name])
                } else {
                    try upsert.execute(
                        arguments: [key.resource, key.namespace, key.name, event.stored.version, event.stored.data])
                }
            }
            if let last = events.last {
                try Self.set(database, "version", Data(String(last.stored.version).utf8))
            }
        }
    }

    func setting(_ name: String) throws -> Data? {
        try queue.read { try Data.fetchOne($0, sql: "SELECT value FROM setting WHERE name = ?", arguments: [name]) }
    }

    func set(_ name: String, _ value: Data) throws {
        try queue.write { try Self.set($0, name, value) }
    }

    private static func set(_ database: Database, _ name: String, _ value: Data) throws {
        try database.cachedStatement(
            sql:
                "INSERT INTO setting (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        ).execute(arguments: [name, value])
    }
}
