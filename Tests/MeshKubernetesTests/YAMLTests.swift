import MeshKubernetes
import Testing

@Suite struct YAMLTests {
    @Test(
        arguments: [
            ("5", 5), ("-5", -5), ("+5", 5), ("0644", 420), ("0o17", 15), ("0x1F", 31), ("1.5", .double(1.5)),
            ("1e3", .double(1000)),
            ("true", true), ("False", false), ("~", nil), ("null", nil), ("yes", "yes"), ("on", "on"), ("\"5\"", "5"),
            ("'true'", "true"),
            ("1.2.3", "1.2.3"), ("10Mi", "10Mi"), ("2026-01-31", "2026-01-31"), ("0899", "0899"), (".", "."),
            ("12:30", "12:30"),
            ("99999999999999999999", .double(1e20)), ("!!str 5", "5"), ("0b1", "0b1"), ("1_000", "1_000"), ("e3", "e3"),
            ("+", "+"),
        ] as [(String, JSONValue)])
    func aScalarIsReadAsKubernetesDoes(text: String, expected: JSONValue) throws {
        #expect(try YAMLReader.documents("a: \(text)") == [["a": expected]])
        #expect(try YAMLReader.documents("- \(text)\n- x").first?[0] == expected)
    }

    @Test func documentsAnchorsAndMergesAreRead() throws {
        let text = """
            # nothing but a comment
            ---
            a: &base {x: 1, y: [1, 2]}
            b:
              <<: *base
              x: 2
            c: |
              two
              lines
            ---
            ---
            - *unused
            """
        #expect(throws: ManifestError.self) { try YAMLReader.documents(text) }
        let documents = try YAMLReader.documents(text.replacing("- *unused", with: "- last"))
        #expect(
            documents == [["a": ["x": 1, "y": [1, 2]], "b": ["x": 2, "y": [1, 2]], "c": "two\nlines\n"], ["last"]])
    }

    @Test(arguments: ["a: [", "a: 1\n a: 2", "a: 1\na: 2", "? [a]\n: b", "a: *b", "<<: 5", "\t- a"])
    func whatCannotBeReadSaysWhy(text: String) {
        let error = #expect(throws: ManifestError.self) { try YAMLReader.documents(text) }
        #expect(error?.description.isEmpty == false)
    }

    /// Ten levels of ten aliases each are more values than any manifest has.
    @Test func aTextThatUnfoldsWithoutEndIsRefused() {
        var text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        for level in 1...9 {
            text += "a\(level): &a\(level) [\(Array(repeating: "*a\(level - 1)", count: 10).joined(separator: ", "))]\n"
        }
        #expect(throws: ManifestError.self) { try YAMLReader.documents(text) }
    }

    @Test func writtenYAMLIsForReaders() {
        let object: JSONValue = [
            "spec": [
                "image": "host", "ports": [["containerPort": 80, "name": "http"]], "args": ["yes", "5", "a: b", ""],
                "empty": [], "none": [:],
            ],
            "metadata": ["labels": ["a/b": "x"], "name": "web"], "kind": "Pod", "apiVersion": "v1", "status": [:],
            "text": "two\nlines\n", "number": 5, "flag": false, "nothing": nil,
        ]
        #expect(
            YAMLWriter.text(object) == """
                apiVersion: v1
                kind: Pod
                metadata:
                  name: web
                  labels:
                    a/b: x
                flag: false
                nothing: null
                number: 5
                spec:
                  args:
                  - "yes"
                  - "5"
                  - "a: b"
                  - ""
                  empty: []
                  image: host
                  none: {}
                  ports:
                  - name: http
                    containerPort: 80
                text: |
                  two
                  lines
                status: {}

                """)
    }

    @Test func whatIsWrittenReadsBackTheSame() throws {
        var random = SeededRandom(seed: 3)
        let texts = [
            "yes", "No", "~", "null", "5", "0644", "1e3", "-", "- a", "a: b", "a #b", "#a", "&a", "*a", "!a", "%a",
            "@a", "`a", "[a", "{a", "a,b", "'",
            "\"", "a\nb", "a\n", "\na\n", " a\nb\n", "a\n\n", "a\nb\n\n", "é😀", "\u{1}", "a ", " a", "", "=", "<<",
            "2026-01-31", "12:30", "0x1f",
            "1_0", ".5", "true", "/a/b", "a:", "a: ", "$(X)", "a\tb\nc\n", "x\u{85}y\nz\n", "y", "---", "a\r\nb\n",
        ]
        for text in texts {
            let value: JSONValue = [
                "k": .string(text), "l": [.string(text), [.string(text)]], text.isEmpty ? "e" : text: 1,
            ]
            #expect(try YAMLReader.documents(YAMLWriter.text(value)) == [value], "\(text.debugDescription)")
        }
        for _ in 0..<300 {
            let value = JSONValue.random(depth: 0, using: &random)
            guard !value.isNull else { continue }
            #expect(try YAMLReader.documents(YAMLWriter.text(value)) == [value])
        }
    }
}
