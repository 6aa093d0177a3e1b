internal import CApus

/// The header fields of one HTTP/2 message, in order, as libnghttp2 takes and gives them.
///
/// Received fields share the decoder's reference-counted bytes, so that a field can be passed on to another stream
/// without a copy. Added fields are copied once, unless they are static. A block belongs to one loop. It must not
/// change after it was given to a stream.
package final class HTTP2Headers {
    /// One piece of memory with `references` behind them.
    private var fields: UnsafeMutablePointer<nghttp2_nv>
    /// Two for each field, name and value; nil where the bytes are static or in `pieces`.
    private var references: UnsafeMutablePointer<OpaquePointer?>
    private var capacity: Int
    package private(set) var count = 0
    /// As RFC 9113 §6.5.2 counts it: names, values and 32 bytes for each field.
    package private(set) var listSize = 0
    private var pieces: [UnsafeMutableRawPointer] = []

    private static let sharedFlags = UInt8(
        truncatingIfNeeded: NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue | NGHTTP2_NV_FLAG_NO_COPY_VALUE.rawValue)

    package init(minimumCapacity: Int = 12) {
        capacity = max(minimumCapacity, 4)
        (fields, references) = HTTP2Headers.allocate(capacity)
    }

    private static func allocate(
        _ capacity: Int
    ) -> (UnsafeMutablePointer<nghttp2_nv>, UnsafeMutablePointer<OpaquePointer?>) {
        let fieldBytes = capacity * MemoryLayout<nghttp2_nv>.stride
        let memory = UnsafeMutableRawPointer.allocate(
            byteCount: fieldBytes + 2 * capacity * MemoryLayout<OpaquePointer?>.stride,
            alignment: MemoryLayout<nghttp2_nv>.alignment)
        return (
            memory.bindMemory(to: nghttp2_nv.self, capacity: capacity),
            (memory + fieldBytes).bindMemory(to: OpaquePointer?.self, capacity: 2 * capacity)
        )
    }

    deinit {
        for index in 0..<count * 2 {
            if let reference = references[index] { nghttp2_rcbuf_decref(reference) }
        }
        for piece in pieces { piece.deallocate() }
        UnsafeMutableRawPointer(fields).deallocate()
    }

    // MARK: Building

    /// Both must outlive the block: literals do.
    package func append(_ name: StaticString, _ value: StaticString) {
        append(
            UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount),
            UnsafeRawBufferPointer(start: value.utf8Start, count: value.utf8CodeUnitCount), nil, nil, 0)
    }

    package func append(_ name: StaticString, _ value: String, isSensitive: Bool = false) {
        var value = value
        value.withUTF8 { append(name, UnsafeRawBufferPointer($0), isSensitive: isSensitive) }
    }

    /// Copies the value. A sensitive value is kept out of the compression's tables (RFC 7541 §7.1.3).
    package func append(_ name: StaticString, _ value: UnsafeRawBufferPointer, isSensitive: Bool = false) {
        append(
            UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount), copy(value), nil, nil,
            isSensitive ? UInt8(truncatingIfNeeded: NGHTTP2_NV_FLAG_NO_INDEX.rawValue) : 0)
    }

    /// Copies both. The name must be in lower case (RFC 9113 §8.2).
    package func append(name: String, value: String) {
        var name = name
        var value = value
        name.withUTF8 { name in
            value.withUTF8 { value in
                append(copy(UnsafeRawBufferPointer(name)), copy(UnsafeRawBufferPointer(value)), nil, nil, 0)
            }
        }
    }

    /// Shares a field of another block of the same loop, without a copy when that block received it.
    package func append(_ index: Int, of other: HTTP2Headers) {
        precondition(index >= 0 && index < other.count, "no such field")
        let field = other.fields[index]
        let name = other.references[index * 2]
        let value = other.references[index * 2 + 1]
        let noIndex = field.flags & UInt8(truncatingIfNeeded: NGHTTP2_NV_FLAG_NO_INDEX.rawValue)
        guard let name, let value else {
            append(copy(other.name(at: index)), copy(other.value(at: index)), nil, nil, noIndex)
            return
        }
        nghttp2_rcbuf_incref(name)
        nghttp2_rcbuf_incref(value)
        append(other.name(at: index), other.value(at: index), name, value, noIndex)
    }

    package func remove(at index: Int) {
        precondition(index >= 0 && index < count, "no such field")
        listSize -= fields[index].namelen + fields[index].valuelen + 32
        for side in 0..<2 {
            if let reference = references[index * 2 + side] { nghttp2_rcbuf_decref(reference) }
        }
        count -= 1
        (fields + index).moveInitialize(from: fields + index + 1, count: count - index)
        (references + index * 2).moveInitialize(from: references + index * 2 + 2, count: (count - index) * 2)
    }

    /// A field as the decoder gives it; its references are counted up.
    func append(received name: OpaquePointer, _ value: OpaquePointer, flags: UInt8) {
        nghttp2_rcbuf_incref(name)
        nghttp2_rcbuf_incref(value)
        let nameBytes = nghttp2_rcbuf_get_buf(name)
        let valueBytes = nghttp2_rcbuf_get_buf(value)
        append(
            UnsafeRawBufferPointer(start: nameBytes.base, count: nameBytes.len),
            UnsafeRawBufferPointer(start: valueBytes.base, count: valueBytes.len), name, value,
            flags & UInt8(truncatingIfNeeded: NGHTTP2_NV_FLAG_NO_INDEX.rawValue))
    }

    private func append(
        _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, _ nameReference: OpaquePointer?,
        _ valueReference: OpaquePointer?, _ flags: UInt8
    ) {
        if count == capacity { grow() }
        (fields + count).initialize(
            to: nghttp2_nv(
                name: HTTP2Headers.pointer(name), value: HTTP2Headers.pointer(value), namelen: name.count,
                valuelen: value.count, flags: HTTP2Headers.sharedFlags | flags))
        (references + count * 2).initialize(to: nameReference)
        (references + count * 2 + 1).initialize(to: valueReference)
        count += 1
        listSize += name.count + value.count + 32
    }

    private func grow() {
        let larger = capacity * 2
        let (newFields, newReferences) = HTTP2Headers.allocate(larger)
        newFields.moveInitialize(from: fields, count: count)
        newReferences.moveInitialize(from: references, count: count * 2)
        UnsafeMutableRawPointer(fields).deallocate()
        fields = newFields
        references = newReferences
        capacity = larger
    }

    /// An empty field needs an address too; the library only reads through it.
    private static func pointer(_ bytes: UnsafeRawBufferPointer) -> UnsafeMutablePointer<UInt8> {
        let empty: StaticString = ""
        let start = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) ?? empty.utf8Start
        return UnsafeMutablePointer(mutating: start)
    }

    private func copy(_ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        guard !bytes.isEmpty else { return bytes }
        let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
        piece.copyMemory(from: bytes)
        if let base = piece.baseAddress { pieces.append(base) }
        return UnsafeRawBufferPointer(piece)
    }

    // MARK: Reading

    /// Valid as long as the block.
    package func name(at index: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: fields[index].name, count: fields[index].namelen)
    }

    /// Valid as long as the block.
    package func value(at index: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: fields[index].value, count: fields[index].valuelen)
    }

    /// Of the first field with this name.
    package func firstIndex(of name: StaticString) -> Int? {
        let wanted = UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
        for index in 0..<count where self.name(at: index).elementsEqual(wanted) { return index }
        return nil
    }

    /// Of the first field with this name, decoded as UTF-8 with repairs.
    package func value(of name: StaticString) -> String? {
        firstIndex(of: name).map { String(decoding: value(at: $0), as: UTF8.self) }
    }

    /// Name and value of every field, as text.
    package var all: [(name: String, value: String)] {
        (0..<count).map {
            (String(decoding: name(at: $0), as: UTF8.self), String(decoding: value(at: $0), as: UTF8.self))
        }
    }

    /// `:status`, when it is a number of three digits.
    package var status: Int? {
        guard let index = firstIndex(of: ":status") else { return nil }
        let digits = value(at: index)
        guard digits.count == 3, digits.allSatisfy({ (48...57).contains($0) }) else { return nil }
        return digits.reduce(0) { $0 * 10 + Int($1) - 48 }
    }

    var pointer: UnsafeMutablePointer<nghttp2_nv> { fields }
}
