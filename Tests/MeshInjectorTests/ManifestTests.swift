import MeshCore
import MeshInjector
import MeshKubernetes
import Testing

@Suite struct ManifestTests {
    static let settings = InjectionSettings(version: "1.2.3", trustBundle: "PEM\n")

    @Test func templatesGetASidecarAndOtherDocumentsStayToTheLetter() throws {
        let service = """
            # A comment that stays.
            apiVersion: v1
            kind: Service
            metadata: {name: web}   # odd spacing
            spec:
              ports: [{port: 80}]

            """
        let text = """
            apiVersion: apps/v1
            kind: Deployment
            metadata:
              name: web
            spec:
              replicas: 2
              selector:
                matchLabels: {app: web}
              template:
                metadata:
                  labels: {app: web}
                spec:
                  containers:
                  - name: web
                    image: host
                    env:
                    - name: SWITCH
                      value: "yes"
            ---
            \(service)---
            apiVersion: v1
            kind: Pod
            metadata:
              name: lone
              labels: {apus.dev/inject: disabled}
            spec:
              containers: [{name: a, image: host}]
            """
        let (output, outcomes) = try Injection.inject(documents: text, namespace: "shop", settings: Self.settings)
        #expect(output.contains("---\n\(service)---\n"))
        #expect(outcomes.map(\.object) == ["Deployment shop/web", "Pod shop/lone"])
        #expect(outcomes.map(\.isInjected) == [true, false])
        let documents = try YAMLReader.documents(output)
        let template = try #require(documents[0][path: "spec", "template"])
        #expect(template[path: "metadata", "labels", "apus.dev/injected"] == "true")
        #expect(template[path: "metadata", "name"] == nil)
        #expect(template[path: "spec", "containers"]?[0]?["env"]?[0]?["value"] == "yes")
        let sidecar = try #require(template[path: "spec", "initContainers"]?[1])
        #expect(sidecar["env"]?.array?.contains(["name": "APUS_OWNER", "value": "web"]) == true)
        let again = try Injection.inject(documents: output, namespace: "shop", settings: Self.settings)
        #expect(again.text == output)
    }

    @Test(arguments: [
        ("apps/v1", "StatefulSet", "template"), ("apps/v1", "DaemonSet", "template"),
        ("apps/v1", "ReplicaSet", "template"),
        ("batch/v1", "Job", "template"), ("batch/v1", "CronJob", "jobTemplate"),
    ])
    func everyKindWithAPodTemplateIsInjected(apiVersion: String, kind: String, field: String) throws {
        let template: JSONValue = ["spec": ["containers": [["name": "a", "image": "host"]]]]
        let inner: JSONValue = field == "template" ? template : ["spec": ["template": template]]
        let object: JSONValue = [
            "apiVersion": .string(apiVersion), "kind": .string(kind), "metadata": ["name": "a"],
            "spec": .object([field: inner]),
        ]
        let (output, outcomes) = try Injection.inject(
            documents: YAMLWriter.text(object), namespace: "shop", settings: Self.settings)
        #expect(outcomes.map(\.isInjected) == [true])
        #expect(output.contains("name: apus-proxy"))
    }

    @Test func itemsOfAListAreInjected() throws {
        let pod: JSONValue = [
            "apiVersion": "v1", "kind": "Pod", "metadata": ["name": "a"],
            "spec": ["containers": [["name": "a", "image": "host"]]],
        ]
        let list: JSONValue = [
            "apiVersion": "v1", "kind": "List", "items": [pod, ["apiVersion": "v1", "kind": "Secret"]],
        ]
        let (_, outcomes) = try Injection.inject(
            documents: YAMLWriter.text(list), namespace: "shop", settings: Self.settings)
        #expect(outcomes.map(\.object) == ["Pod shop/a"])
    }

    @Test(arguments: [
        (
            "kind: Pod\napiVersion: v1\nmetadata: {name: a, annotations: {apus.dev/x: '1'}}\nspec: {containers: [{name: a}]}",
            "Pod shop/a: metadata.annotations[apus.dev/x] is '1', expected no such annotation"
        ),
        ("kind: Deployment\napiVersion: apps/v1\nmetadata: {name: a}", "Deployment shop/a: /spec/template is absent"),
        ("a: [", "not YAML"),
        ("a: 1\na: 2", "duplicated key"),
    ])
    func aManifestThatCannotBeInjectedSaysWhy(text: String, reason: String) {
        let error = #expect(throws: ManifestError.self) {
            try Injection.inject(documents: text, namespace: "shop", settings: Self.settings)
        }
        #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
    }

    @Test func theInstallationIsWhatTheControlPlaneNeeds() throws {
        var settings = InstallSettings(version: "1.2.3", imagePullPolicy: "Never")
        settings.mesh.plaintext = .permissive
        let objects = InstallManifests.render(settings)
        #expect(
            objects.map(\.kind) == [
                "Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ConfigMap",
                "Service",
                "Deployment", "MutatingWebhookConfiguration",
            ])
        #expect(try YAMLReader.documents(InstallManifests.yaml(settings)) == objects.map(\.json))
        let deployment = try objects[8].view(Kubernetes.Deployment.self)
        let container = deployment.spec.template.spec.containers[0]
        #expect(container.image == "apus/control:1.2.3")
        #expect(container.env.first { $0.name == "APUS_PLAINTEXT" }?.value == "permissive")
        #expect(deployment.spec.selector.matches(deployment.spec.template.metadata.labels))
        let service = try objects[7].view(Kubernetes.Service.self)
        #expect(service.spec.ports.map(\.port) == [15010, 443, 15014])
        #expect(service.spec.ports.map(\.targetPort) == [.int(15010), .int(15011), .int(15014)])
        // Pods of the control plane and of opted-out namespaces never wait for the webhook that they themselves serve.
        let hook = try #require(objects[9].json["webhooks"]?[0])
        let namespaces: LabelSelector = try #require(try hook["namespaceSelector"]?.decoded())
        let pods: LabelSelector = try #require(try hook["objectSelector"]?.decoded())
        #expect(!namespaces.matches(["kubernetes.io/metadata.name": "apus-system"]))
        #expect(!namespaces.matches(["kubernetes.io/metadata.name": "shop", "apus.dev/inject": "disabled"]))
        #expect(namespaces.matches(["kubernetes.io/metadata.name": "shop"]))
        #expect(!pods.matches(["apus.dev/inject": "disabled"]))
        #expect(pods.matches([:]))
        #expect(hook["failurePolicy"] == "Fail")
        #expect(hook["timeoutSeconds"] == 5)
    }
}
