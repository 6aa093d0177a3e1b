import Foundation
import Testing

/// Databases and their own clients through two sidecars, on ports that nobody declares.
@Suite("Databases in the mesh", .serialized, .timeLimit(.minutes(3)))
struct DatabaseTests {
    /// A database in a pod, run as the user that its package made, with a Service whose port says nothing of its protocol.
    private struct Database {
        let name: String
        let user: String
        let port: Int
        let script: String

        func manifests() throws -> String {
            guard let entry = getpwnam(user) else {
                throw Failure("there is no user \(user): the package of \(name) is missing")
            }
            let (user, group) = (entry.pointee.pw_uid, entry.pointee.pw_gid)
            let lines = script.split(separator: "\n").map { "          " + $0 }.joined(separator: "\n")
            return """
                apiVersion: v1
                kind: Service
                metadata: {name: \(name), namespace: test}
                spec: {selector: {app: \(name)}, ports: [{name: data, port: \(port), targetPort: \(port)}]}
                ---
                apiVersion: apps/v1
                kind: Deployment
                metadata: {name: \(name), namespace: test}
                spec:
                  replicas: 1
                  selector: {matchLabels: {app: \(name)}}
                  template:
                    metadata: {labels: {app: \(name)}}
                    spec:
                      serviceAccountName: \(name)
                      containers:
                      - name: server
                        image: host
                        securityContext: {runAsUser: \(user), runAsGroup: \(group)}
                        command: [sh, -ec]
                        args:
                        - |
                \(lines)
                        ports: [{containerPort: \(port)}]
                        readinessProbe: {tcpSocket: {port: \(port)}, periodSeconds: 1, failureThreshold: 60}
                        volumeMounts: [{name: data, mountPath: /data}]
                      volumes: [{name: data, emptyDir: {}}]
                """
        }
    }

    private static let databases = [
        // With TLS of its own, which its client asks for in the middle of the connection (SSLRequest).
        Database(
            name: "postgresql", user: "postgres", port: 5432,
            script: """
                PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin | tail -1)
                cd /data
                initdb -D /data/db -U tester -A trust --no-sync >/dev/null
                openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=postgresql -days 2 -keyout key.pem -out certificate.pem 2>/dev/null
                chmod 600 key.pem
                echo 'host all all all trust' >> /data/db/pg_hba.conf
                exec postgres -D /data/db -k /data -c listen_addresses='*' -c fsync=off -c ssl=on -c ssl_cert_file=/data/certificate.pem -c ssl_key_file=/data/key.pem
                """),
        Database(
            name: "cache", user: "redis", port: 6379,
            script: "exec redis-server --port 6379 --bind 0.0.0.0 --protected-mode no --save '' --dir /data"),
        // It speaks first.
        Database(
            name: "mariadb", user: "mysql", port: 3306,
            script: """
                echo "CREATE USER tester@'%';" > /data/users.sql
                echo "GRANT ALL ON *.* TO tester@'%';" >> /data/users.sql
                mariadb-install-db --no-defaults --datadir=/data/db --skip-test-db --innodb-log-file-size=8M >/dev/null
                exec mariadbd --no-defaults --datadir=/data/db --socket=/data/socket --pid-file=/data/pid --bind-address=0.0.0.0 --skip-name-resolve --init-file=/data/users.sql --innodb-log-file-size=8M --innodb-buffer-pool-size=16M
                """),
    ]

    @Test("PostgreSQL, Redis and MariaDB answer their own clients, and what their ports speak becomes known")
    func databases() async throws {
        try await Platform.with { platform in
            let client = Workloads.program("client", ["sleep", "infinity"])
            let accounts = Self.databases.map { Workloads.account($0.name) }
            try await platform.apply(
                ([try Workloads.code(), client] + accounts + (try Self.databases.map { try $0.manifests() }))
                    .joined(separator: "\n---\n"))
            _ = try await platform.ready(1, "app=client")
            for database in Self.databases { _ = try await platform.ready(1, "app=\(database.name)") }
            func run(_ script: String) async throws -> String {
                let done = try await platform.exec("deployment/client", "program", "sh", "-ec", script)
                guard done.status == 0 else { throw Failure("'\(script)' failed (\(done.status)): \(done.text)") }
                return done.output.trimmingCharacters(in: .whitespacesAndNewlines)
            }

            for mode in ["disable", "prefer", "require"] {
                let encrypted = try await run(
                    "psql -At 'host=postgresql user=tester dbname=postgres sslmode=\(mode)' "
                        + "-c 'select ssl from pg_stat_ssl where pid = pg_backend_pid()'")
                #expect(encrypted == (mode == "disable" ? "f" : "t"), "sslmode \(mode)")
            }
            let copied = try await run(
                "psql -At 'host=postgresql user=tester dbname=postgres' -c 'create table numbers (n int)' "
                    + "-c \"copy numbers from program 'seq 100000'\" -c 'select sum(n) from numbers'")
            #expect(copied.hasSuffix("5000050000"), "\(copied)")

            #expect(try await run("redis-cli -h cache ping") == "PONG")
            let piped = try await run(
                "seq 20000 | sed 's/.*/SET key& value&/' | redis-cli -h cache --pipe; redis-cli -h cache dbsize")
            #expect(piped.contains("errors: 0, replies: 20000") && piped.hasSuffix("20000"), "\(piped)")
            let published = try await run(
                """
                timeout 20 redis-cli -h cache subscribe news > /tmp/news &
                until [ "$(redis-cli -h cache publish news hello)" = 1 ]; do sleep 0.1; done
                until grep -q hello /tmp/news; do sleep 0.1; done; kill $!; grep -c hello /tmp/news
                """)
            #expect(published == "1")

            let sum = try await run(
                "mariadb -h mariadb -u tester -BN -e 'create database shop; use shop; create table n (n int); "
                    + "insert into n select seq from seq_1_to_100000; select sum(n) from n'")
            #expect(sum == "5000050000")
            #expect(try await run("mariadb -h mariadb -u tester -BN -e 'select 6 * 7'") == "42")

            try await expectMemory(platform)
            try await expectEdges(platform)
        }
    }

    /// The server's own sidecar tells the mesh, and the caller's knows.
    private func expectMemory(_ platform: Platform) async throws {
        func report(_ target: String) async throws -> JSON {
            try JSON.parse(try await platform.apus("proxy", "config", "-n", "test", target, "-o", "json"))
        }
        for (name, port, expected) in [
            ("postgresql", "5432", "opaque"), ("cache", "6379", "opaque"), ("mariadb", "3306", "serverFirst"),
        ] {
            _ = try await platform.until("what \(name) speaks") {
                try await report("deployment/\(name)")["own"]["learnedPorts"][port].text == expected ? true : nil
            }
            let known = try await report("deployment/client")["services"].items.first {
                $0["name"].text == "test/\(name)"
            }
            #expect(known?["learnedProtocol"].text == "\(expected) (seen here)", "\(name)")
        }
        // One that has never called them is told.
        try await platform.apply(Workloads.program("newcomer", ["sleep", "infinity"]))
        _ = try await platform.ready(1, "app=newcomer")
        let answer = try await platform.exec(
            "deployment/newcomer", "program", "timeout", "2", "bash", "-c", "exec 3<>/dev/tcp/mariadb/3306; sleep 0.3")
        #expect(answer.status == 0, "\(answer.text)")
        let told = try await report("deployment/newcomer")["services"].items.first { $0["name"].text == "test/mariadb" }
        #expect(told?["learnedProtocol"].text.hasPrefix("serverFirst") == true)
    }

    private func expectEdges(_ platform: Platform) async throws {
        for database in Self.databases {
            let edge = try await platform.until("the edge from the client to \(database.name)") {
                try JSON.parse(try await platform.apus("edges", "-o", "json"))["edges"].items.first {
                    $0["destination"]["name"].text == database.name && $0["source"]["name"].text == "client"
                        && $0["security"].text != ""
                }
            }
            #expect(edge["security"].text == "mutual_tls", "\(database.name)")
        }
    }
}
