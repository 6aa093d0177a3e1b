import Foundation
import MeshCore

/// Figures as a person reads them; `-` where there was nothing to measure by.
package enum Figures {
    package static func rate(_ perSecond: Double) -> String {
        perSecond == 0 ? "0" : String(format: perSecond < 10 ? "%.1f" : "%.0f", perSecond)
    }

    package static func percent(_ share: Double?) -> String {
        guard let share else { return "-" }
        // Rounding must not hide a failure: 99.996 % is not 100 %.
        if share < 1 && share > 0.9999 { return "99.99%" }
        return share == 1 ? "100%" : String(format: "%.2f%%", share * 100)
    }

    package static func milliseconds(_ value: Double?) -> String {
        guard let value else { return "-" }
        return String(format: value < 10 ? "%.1fms" : "%.0fms", value)
    }

    /// `1.5kB`, in powers of 1000.
    package static func bytes(_ count: Double) -> String {
        var value = count
        var unit = 0
        let units = ["B", "kB", "MB", "GB", "TB"]
        while value >= 999.5, unit < units.count - 1 {
            value /= 1000
            unit += 1
        }
        return (value > 0 && value < 10 && unit > 0 ? String(format: "%.1f", value) : String(format: "%.0f", value))
            + units[unit]
    }

    /// `3h12m`, `45s`: two units at most.
    package static func age(seconds: Double) -> String {
        let total = Int(max(0, seconds))
        switch total {
        case ..<120: return "\(total)s"
        case ..<7200: return total % 60 == 0 || total >= 600 ? "\(total / 60)m" : "\(total / 60)m\(total % 60)s"
        case ..<172_800: return "\(total / 3600)h" + (total % 3600 >= 60 ? "\(total % 3600 / 60)m" : "")
        default: return "\(total / 86400)d" + (total % 86400 >= 3600 ? "\(total % 86400 / 3600)h" : "")
        }
    }
}
