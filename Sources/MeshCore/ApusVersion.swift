/// The version of everything in this package: CLI, control plane, sidecar.
package enum ApusVersion {
    package static let current = "0.1.0"
}
