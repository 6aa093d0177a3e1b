import Foundation
import MeshKubernetes

/// The answer to one AdmissionReview (admission.k8s.io/v1). Pure: a document in, a document out.
struct AdmissionAnswer {
    enum Outcome: String, CaseIterable {
        case injected
        case unchanged
        case skipped
        case refused
    }

    let outcome: Outcome
    let review: JSONValue
    /// For the log: whom it was about, and why it went as it did.
    let subject: String
    let reason: String

    /// Why a document is no review that can be answered.
    struct Malformed: Error, Hashable, CustomStringConvertible {
        let description: String
    }

    init(
        to review: JSONValue, settings: InjectionSettings, namespaceLabels: (String) -> [String: String]
    ) throws(Malformed) {
        guard review["kind"]?.string == "AdmissionReview" else {
            throw Malformed(description: "kind is '\(review["kind"]?.string ?? "absent")', expected AdmissionReview")
        }
        guard review["apiVersion"]?.string == "admission.k8s.io/v1" else {
            throw Malformed(
                description: "apiVersion is '\(review["apiVersion"]?.string ?? "absent")', expected admission.k8s.io/v1"
            )
        }
        guard let request = review["request"], let uid = request["uid"]?.string, !uid.isEmpty else {
            throw Malformed(description: "request.uid is absent")
        }
        let namespace = request["namespace"]?.string ?? ""
        let metadata = request[path: "object", "metadata"]
        subject = "\(namespace)/\(metadata?["name"]?.string ?? metadata?["generateName"]?.string ?? "")"
        guard request[path: "kind", "kind"]?.string == "Pod", request[path: "kind", "group"]?.string ?? "" == "",
            let pod = request["object"], pod.object != nil
        else {
            outcome = .skipped
            reason = "it is not a pod"
            self.review = AdmissionAnswer.response(uid, ["allowed": true])
            return
        }
        let decision = Injection.patch(
            pod: pod, namespace: namespace, namespaceLabels: namespaceLabels(namespace), settings: settings)
        switch decision {
        case .skip(let reason):
            outcome = .skipped
            self.reason = reason
            self.review = AdmissionAnswer.response(uid, ["allowed": true])
        case .refuse(let reason):
            outcome = .refused
            self.reason = reason
            let status: JSONValue = ["status": "Failure", "reason": "Invalid", "code": 422, "message": .string(reason)]
            self.review = AdmissionAnswer.response(uid, ["allowed": false, "status": status])
        case .patch(let patch) where patch.isEmpty:
            outcome = .unchanged
            reason = "it is already as it should be"
            self.review = AdmissionAnswer.response(uid, ["allowed": true])
        case .patch(let patch):
            outcome = .injected
            reason = ""
            let encoded = patch.json.data().base64EncodedString()
            self.review = AdmissionAnswer.response(
                uid, ["allowed": true, "patchType": "JSONPatch", "patch": .string(encoded)])
        }
    }

    private static func response(_ uid: String, _ response: JSONValue) -> JSONValue {
        var response = response
        response["uid"] = .string(uid)
        return ["apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response]
    }
}
