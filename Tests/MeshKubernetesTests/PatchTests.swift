import MeshKubernetes
import Testing

@Suite struct PatchTests {
    /// The examples of RFC 6902, appendix A, and the edges around them.
    @Test(
        arguments: [
            (["foo": "bar"], [["op": "add", "path": "/baz", "value": "qux"]], ["baz": "qux", "foo": "bar"]),
            (
                ["foo": ["bar", "baz"]], [["op": "add", "path": "/foo/1", "value": "qux"]],
                ["foo": ["bar", "qux", "baz"]]
            ),
            (["foo": ["bar"]], [["op": "add", "path": "/foo/-", "value": ["abc"]]], ["foo": ["bar", ["abc"]]]),
            (["baz": "qux", "foo": "bar"], [["op": "remove", "path": "/baz"]], ["foo": "bar"]),
            (["foo": ["bar", "qux", "baz"]], [["op": "remove", "path": "/foo/1"]], ["foo": ["bar", "baz"]]),
            (["baz": "qux"], [["op": "replace", "path": "/baz", "value": "boo"]], ["baz": "boo"]),
            (
                ["foo": ["bar": "baz", "waldo": "fred"], "qux": ["corge": "grault"]],
                [["op": "move", "from": "/foo/waldo", "path": "/qux/thud"]],
                ["foo": ["bar": "baz"], "qux": ["corge": "grault", "thud": "fred"]]
            ),
            (
                ["foo": ["all", "cows", "eat"]], [["op": "move", "from": "/foo/0", "path": "/foo/2"]],
                ["foo": ["cows", "eat", "all"]]
            ),
            (["a": 1], [["op": "copy", "from": "/a", "path": "/b"]], ["a": 1, "b": 1]),
            (["foo": ["a", 2]], [["op": "test", "path": "/foo/1", "value": 2]], ["foo": ["a", 2]]),
            (
                ["foo": "bar"], [["op": "add", "path": "/child", "value": ["grandchild": [:]]]],
                ["foo": "bar", "child": ["grandchild": [:]]]
            ),
            (["foo": nil], [["op": "test", "path": "/foo", "value": nil]], ["foo": nil]),
            (["/": 9, "~1": 10], [["op": "test", "path": "/~01", "value": 10]], ["/": 9, "~1": 10]),
            (["a": 1], [["op": "replace", "path": "", "value": [1]]], [1]),
            (["": 1], [["op": "replace", "path": "/", "value": 2]], ["": 2]),
            (["a": 1], [], ["a": 1]),
        ] as [(JSONValue, JSONValue, JSONValue)])
    func aPatchIsApplied(document: JSONValue, patch: JSONValue, expected: JSONValue) throws {
        #expect(try JSONPatch(json: patch).applied(to: document) == expected)
    }

    @Test(
        arguments: [
            ([["op": "add", "path": "/baz/bat", "value": 1]], "has no parent"),
            ([["op": "remove", "path": "/nope"]], "nothing is at '/nope'"),
            ([["op": "replace", "path": "/nope", "value": 1]], "nothing is at '/nope'"),
            ([["op": "test", "path": "/a", "value": 2]], "test failed"),
            ([["op": "add", "path": "/list/3", "value": 1]], "'3' is not a place in an array of 2"),
            ([["op": "add", "path": "/list/01", "value": 1]], "'01' is not a place"),
            ([["op": "add", "path": "/list/99999999999999999999", "value": 1]], "is not a place"),
            ([["op": "remove", "path": "/list/-"]], "'-' is not an element"),
            ([["op": "remove", "path": ""]], "the whole document"),
            ([["op": "add", "path": "/a/b", "value": 1]], "neither an object nor an array"),
            ([["op": "move", "from": "/o", "path": "/o/x"]], "into itself"),
            ([["op": "copy", "from": "/nope", "path": "/b"]], "nothing is at '/nope'"),
            ([["op": "add", "path": "a", "value": 1]], "expected a JSON pointer"),
            ([["op": "add", "path": "/a~2", "value": 1]], "expected a JSON pointer"),
            ([["op": "add", "path": "/a"]], "no 'value'"),
            ([["op": "frob", "path": "/a"]], "'op' is 'frob'"),
            ([["path": "/a"]], "'op' is 'absent'"),
            (["op": "add"], "is an array"),
        ] as [(JSONValue, String)])
    func aPatchThatCannotBeAppliedSaysWhy(patch: JSONValue, reason: String) {
        let document: JSONValue = ["a": 1, "list": [1, 2], "o": ["p": 1]]
        let error = #expect(throws: PatchError.self) { try JSONPatch(json: patch).applied(to: document) }
        #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
    }

    @Test func aPatchHasALimit() {
        let many = JSONValue.array(
            Array(repeating: ["op": "remove", "path": "/a"], count: JSONPatch.operationLimit + 1))
        #expect(throws: PatchError.self) { try JSONPatch(json: many) }
    }

    @Test func theDifferenceOfAnInsertionIsOneOperation() {
        let old: JSONValue = ["spec": ["containers": [["name": "a"], ["name": "b"]]]]
        let new: JSONValue = ["spec": ["containers": [["name": "x"], ["name": "a"], ["name": "b"]]]]
        #expect(
            JSONPatch.difference(from: old, to: new).json
                == [["op": "add", "path": "/spec/containers/0", "value": ["name": "x"]]])
    }

    @Test func theDifferenceMakesTheNewDocumentOfTheOld() throws {
        var random = SeededRandom(seed: 42)
        for _ in 0..<500 {
            let old = JSONValue.random(depth: 0, using: &random)
            let new = JSONValue.random(depth: 0, using: &random)
            let patch = JSONPatch.difference(from: old, to: new)
            #expect(try JSONPatch(json: patch.json).applied(to: old) == new)
            #expect(patch.isEmpty == (old == new))
        }
    }

    /// The examples of RFC 7386, appendix A.
    @Test(
        arguments: [
            (["a": "b"], ["a": "c"], ["a": "c"]), (["a": "b"], ["b": "c"], ["a": "b", "b": "c"]),
            (["a": "b"], ["a": nil], [:]),
            (["a": "b", "b": "c"], ["a": nil], ["b": "c"]), (["a": ["b"]], ["a": "c"], ["a": "c"]),
            (["a": "c"], ["a": ["b"]], ["a": ["b"]]),
            (["a": ["b": "c"]], ["a": ["b": "d", "c": nil]], ["a": ["b": "d"]]),
            (["a": [["b": "c"]]], ["a": [1]], ["a": [1]]),
            (["a", "b"], ["c", "d"], ["c", "d"]), (["a": "b"], ["c"], ["c"]), (["a": "foo"], nil, nil),
            (["a": "foo"], "bar", "bar"),
            (["e": nil], ["a": 1], ["e": nil, "a": 1]), ([1, 2], ["a": "b", "c": nil], ["a": "b"]),
            ([:], ["a": ["bb": ["ccc": nil]]], ["a": ["bb": [:]]]),
        ] as [(JSONValue, JSONValue, JSONValue)])
    func aMergePatchIsLaidOver(target: JSONValue, patch: JSONValue, expected: JSONValue) {
        #expect(MergePatch.apply(patch, to: target) == expected)
    }

    @Test func theDifferenceAsAMergePatch() {
        let old: JSONValue = ["a": 1, "b": ["c": 2, "d": 3], "e": [1]]
        let new: JSONValue = ["b": ["c": 2, "d": 4], "e": [1, 2], "f": "x"]
        let patch = MergePatch.difference(from: old, to: new)
        #expect(patch == ["a": nil, "b": ["d": 4], "e": [1, 2], "f": "x"])
        #expect(MergePatch.apply(patch, to: old) == new)
    }
}
