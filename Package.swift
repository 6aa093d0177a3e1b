// swift-tools-version: 6.2
import Glibc
import PackageDescription

/// What every target of ours is compiled with. `-enforce-exclusivity=unchecked` is not here: it counts only when the
/// whole build has it, so the Makefile passes it (docs/decisions/0002-build-flags.md).
let house: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

func library(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: house)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = []) -> Target {
    .testTarget(name: name, dependencies: dependencies, resources: resources, swiftSettings: house)
}

/// The binaries carry the Swift runtime, so that an image, a pod or a fresh machine needs none of it. Said here and not by
/// `--static-swift-stdlib`, because the test bundle needs the dynamic one and both must share one build.
let standalone: [LinkerSetting] = [
    .unsafeFlags([
        "-static-stdlib", "-lCoreFoundation", "-l_FoundationCShims", "-l_FoundationCollections", "-l_FoundationICU",
        "-lswiftSynchronization", "-lswiftRegexBuilder", "-lswift_StringProcessing", "-lswift_RegexParser",
        "-Xlinker", "--gc-sections",
    ])
]

/// The minor version of the machine's glibc 2, or 0.
func libraryVersion() -> Int {
    var name = [CChar](repeating: 0, count: 64)  // "glibc 2.36"
    _ = confstr(Int32(_CS_GNU_LIBC_VERSION), &name, name.count - 1)
    let text = String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return text.split(separator: ".").last.flatMap { Int($0) } ?? 0
}

/// The sidecar is in every pod, and what it reads of its own file at start counts in each: docs/decisions/0008-resident-memory.md.
/// `-static-stdlib` exports every symbol, but nothing looks the sidecar's up by name. Packed relocations need glibc 2.36.
let frugal: [LinkerSetting] = [
    .unsafeFlags(
        ["-use-ld=lld", "-Xlinker", "--no-export-dynamic"]
            + (libraryVersion() >= 36 ? ["-Xlinker", "-z", "-Xlinker", "pack-relative-relocs"] : []))
]

extension Target.Dependency {
    static let logging: Self = .product(name: "Logging", package: "swift-log")
    static let deque: Self = .product(name: "DequeModule", package: "swift-collections")
    static let boringSSL: Self = .product(name: "NIOSSL", package: "swift-nio-ssl")
    static let protobuf: Self = .product(name: "SwiftProtobuf", package: "swift-protobuf")
    static let x509: Self = .product(name: "X509", package: "swift-certificates")
    static let crypto: Self = .product(name: "Crypto", package: "swift-crypto")
    static let asn1: Self = .product(name: "SwiftASN1", package: "swift-asn1")
    static let httpClient: Self = .product(name: "AsyncHTTPClient", package: "async-http-client")
    static let hummingbird: Self = .product(name: "Hummingbird", package: "hummingbird")
    static let hummingbirdTLS: Self = .product(name: "HummingbirdTLS", package: "hummingbird")
    static let nioCore: Self = .product(name: "NIOCore", package: "swift-nio")
    static let nioPosix: Self = .product(name: "NIOPosix", package: "swift-nio")
    static let nioHTTP1: Self = .product(name: "NIOHTTP1", package: "swift-nio")
    static let nioWebSocket: Self = .product(name: "NIOWebSocket", package: "swift-nio")
    static let nioFoundation: Self = .product(name: "NIOFoundationCompat", package: "swift-nio")
    static let grdb: Self = .product(name: "GRDB", package: "GRDB.swift")
    static let yams: Self = .product(name: "Yams", package: "Yams")
    static let arguments: Self = .product(name: "ArgumentParser", package: "swift-argument-parser")
    static let lifecycle: Self = .product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
}

let package = Package(
    name: "apus",
    products: [
        .executable(name: "apus", targets: ["apus"]),
        .executable(name: "apus-control", targets: ["apus-control"]),
        .executable(name: "apus-proxy", targets: ["apus-proxy"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
        .package(url: "https://github.com/apple/swift-asn1", exact: "1.7.4"),
        .package(url: "https://github.com/apple/swift-certificates", exact: "1.21.1"),
        .package(url: "https://github.com/apple/swift-collections", exact: "1.6.0"),
        .package(url: "https://github.com/apple/swift-crypto", exact: "4.5.2"),
        .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", exact: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", exact: "2.37.6"),
        .package(url: "https://github.com/apple/swift-protobuf", exact: "1.39.0"),
        .package(url: "https://github.com/groue/GRDB.swift", exact: "7.10.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", exact: "2.28.1"),
        .package(url: "https://github.com/jpsim/Yams", exact: "6.2.2"),
        .package(url: "https://github.com/swift-server/async-http-client", exact: "1.37.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", exact: "2.13.0"),
    ],
    targets: [
        .target(name: "CApus", linkerSettings: [.linkedLibrary("nghttp2")]),
        library("MeshAddress", []),
        library("MeshIO", ["CApus", "MeshAddress", .boringSSL]),
        library("MeshHTTP", ["CApus", "MeshAddress", "MeshIO"]),
        library("MeshCore", ["MeshAddress"]),
        library("MeshAPI", [.protobuf]),
        library("MeshTelemetry", ["MeshAddress", "MeshCore", .logging]),
        library("MeshIdentity", ["MeshAddress", "MeshCore", "MeshAPI", "MeshTelemetry", .x509, .crypto, .asn1]),
        library(
            "MeshXDS", ["MeshIO", "MeshHTTP", "MeshAddress", "MeshCore", "MeshAPI", "MeshTelemetry", .protobuf]),
        library(
            "MeshProxy",
            [
                "CApus", "MeshIO", "MeshHTTP", "MeshAddress", "MeshCore", "MeshTelemetry", "MeshIdentity", "MeshXDS",
                .logging, .deque,
            ]),
        library(
            "MeshControl",
            [
                "MeshIO", "MeshHTTP", "MeshAddress", "MeshCore", "MeshAPI", "MeshTelemetry", "MeshIdentity", "MeshXDS",
                .logging,
                .protobuf,
            ]),
        library(
            "MeshKubernetes",
            [
                "MeshAddress", "MeshCore", "MeshTelemetry", .httpClient, .nioCore, .nioHTTP1, .nioFoundation,
                .boringSSL, .yams,
                .logging, .lifecycle,
            ]),
        library(
            "MeshInjector",
            [
                "MeshAddress", "MeshCore", "MeshKubernetes", .hummingbird, .hummingbirdTLS, .nioCore, .boringSSL,
                .logging,
            ]),
        library(
            "MeshLocal",
            [
                "CApus", "MeshAddress", "MeshCore", "MeshKubernetes", "MeshTelemetry", .hummingbird, .hummingbirdTLS,
                .grdb, .nioCore,
                .nioPosix, .nioHTTP1, .nioWebSocket, .nioFoundation, .boringSSL, .crypto, .x509, .asn1, .logging,
                .deque,
            ]),
        library(
            "MeshCommands",
            [
                "MeshAddress", "MeshCore", "MeshAPI", "MeshTelemetry", "MeshKubernetes", "MeshInjector", "MeshLocal",
                .arguments, .yams,
                .logging,
            ]),
        .executableTarget(
            name: "apus", dependencies: ["MeshCommands", .arguments], swiftSettings: house, linkerSettings: standalone),
        .executableTarget(
            name: "apus-control",
            dependencies: [
                "MeshAddress", "MeshCore", "MeshTelemetry", "MeshIdentity", "MeshControl", "MeshKubernetes",
                "MeshInjector", .arguments,
                .logging,
            ],
            swiftSettings: house, linkerSettings: standalone),
        .executableTarget(
            name: "apus-proxy", dependencies: ["MeshProxy", .arguments, .logging, .yams],
            swiftSettings: house, linkerSettings: standalone + frugal),
        // What Benchmarks/instructions.py counts; nothing installs it.
        .executableTarget(
            name: "apus-instructions",
            dependencies: ["MeshAddress", "MeshCore", "MeshHTTP", "MeshIO", "MeshProxy", "MeshTelemetry"],
            path: "Benchmarks/Instructions", swiftSettings: house),
        .testTarget(
            name: "FuzzReplayTests",
            dependencies: [
                "MeshAddress", "MeshIO", "MeshHTTP", "MeshCore", "MeshTelemetry", "MeshXDS", "MeshProxy",
                "MeshKubernetes",
                "MeshLocal",
            ],
            path: "Fuzz", exclude: ["Corpus", "Failures", "Entry", "README.md", "run", "differential"],
            sources: ["Properties", "Replay"], swiftSettings: house),
        // Takes the place of system calls on threads that ask for it: Tests/MeshProxyTests/Simulation.
        .target(name: "CSimulatedKernel", path: "Tests/CSimulatedKernel", linkerSettings: [.linkedLibrary("dl")]),
        tests("ArchitectureTests", []),
        tests("EndToEndTests", [], resources: [.copy("Workloads")]),
        tests("MeshIOTests", ["MeshAddress", "MeshIO", .x509, .crypto, .asn1]),
        tests(
            "MeshProxyTests",
            [
                "CApus", "CSimulatedKernel", "MeshAddress", "MeshIO", "MeshHTTP", "MeshCore", "MeshTelemetry",
                "MeshIdentity", "MeshProxy",
                .logging,
            ]),
        tests("MeshCommandsTests", ["MeshKubernetes", "MeshCommands"]),
        tests("MeshCoreTests", ["MeshAddress", "MeshCore"]),
        tests("MeshTelemetryTests", ["MeshAddress", "MeshHTTP", "MeshCore", "MeshTelemetry"]),
        tests("MeshHTTPTests", ["CApus", "MeshAddress", "MeshIO", "MeshHTTP"], resources: [.copy("Corpus")]),
        tests(
            "MeshInjectorTests",
            ["MeshCore", "MeshKubernetes", "MeshInjector", .httpClient, .nioCore, .nioHTTP1, .boringSSL, .logging],
            resources: [.copy("Golden")]),
        tests(
            "MeshKubernetesTests",
            [
                "MeshAddress", "MeshCore", "MeshKubernetes", .hummingbird, .hummingbirdTLS, .httpClient, .nioCore,
                .logging,
            ]),
        tests(
            "MeshXDSTests",
            ["MeshAddress", "MeshIO", "MeshHTTP", "MeshCore", "MeshAPI", "MeshIdentity", "MeshXDS", .protobuf]),
        tests("MeshIdentityTests", ["MeshCore", "MeshIdentity"]),
        tests(
            "MeshControlTests",
            [
                "MeshAddress", "MeshIO", "MeshHTTP", "MeshCore", "MeshTelemetry", "MeshIdentity", "MeshXDS",
                "MeshControl",
            ]),
        tests(
            "MeshLocalTests",
            [
                "CApus", "MeshAddress", "MeshCore", "MeshKubernetes", "MeshLocal", .hummingbird, .hummingbirdTLS,
                .boringSSL, .nioCore,
                .nioPosix, .crypto, .x509, .asn1, .logging,
            ]),
    ]
)
