import Foundation

/// Between two looks at something that cannot be waited on.
func pauseBriefly() {
    usleep(10_000)
}
