use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use tracer_policy::Owner;

use super::*;

fn load_text(text: &str) -> Result<Loaded, LoadError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.yaml");
    fs::write(&file, text).unwrap();
    load(&file)
}

/// The message without the folder's name.
fn refused(text: &str) -> String {
    let message = load_text(text).unwrap_err().to_string();
    message.split_once("cluster.yaml").unwrap().1.to_owned()
}

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n";

#[test]
fn a_kubectl_list_is_taken_over_whole() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/incident.yaml");
    let loaded = load(&file).unwrap();
    let used: Vec<_> = loaded
        .used
        .iter()
        .map(|(kind, n)| (kind.as_str(), *n))
        .collect();
    assert_eq!(
        used,
        [
            ("EndpointSlice", 2),
            ("Namespace", 2),
            ("NetworkPolicy", 1),
            ("Node", 2),
            ("Pod", 3),
            ("Service", 2)
        ]
    );
    assert_eq!(
        loaded.skipped.iter().collect::<Vec<_>>(),
        [(&"apps/v1 StatefulSet".to_owned(), &1)]
    );
    assert_eq!(loaded.warnings(), []);
    assert!(matches!(
        loaded.cluster.owner("10.42.1.10".parse().unwrap()),
        Owner::Pod(pod) if pod.id.to_string() == "vault/vault-0"
    ));
    assert_eq!(loaded.policies[0].policy, "vault/vault-policy");
    assert_eq!(loaded.policies[0].place.item, Some(11));
    let line = usize::try_from(loaded.policies[0].place.line.unwrap()).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(
        text.lines().nth(line - 1).unwrap(),
        "- apiVersion: networking.k8s.io/v1"
    );
}

#[test]
fn json_lists_and_typed_lists_are_read_too() {
    let list = r#"{"apiVersion":"v1","kind":"PodList","items":[
        {"metadata":{"name":"a","namespace":"n"},"status":{"podIP":"10.0.0.1"}},
        {"metadata":{"name":"b","namespace":"n"}}]}
        {"apiVersion":"v1","kind":"Namespace","metadata":{"name":"n"}}"#;
    let loaded = load_text(list).unwrap();
    assert_eq!((loaded.used["Pod"], loaded.used["Namespace"]), (2, 1));
    let yaml = "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: a, namespace: n}\n";
    assert_eq!(load_text(yaml).unwrap().used["Pod"], 1);
}

#[test]
fn a_folder_is_read_in_order_of_names_and_the_later_object_counts() {
    let folder = tempfile::tempdir().unwrap();
    let pod = |ip: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: n}}\nstatus: {{podIP: {ip}}}\n"
        )
    };
    fs::create_dir(folder.path().join("b")).unwrap();
    fs::write(folder.path().join("b/late.yml"), pod("10.0.0.2")).unwrap();
    fs::write(folder.path().join("a.yaml"), pod("10.0.0.1")).unwrap();
    fs::write(folder.path().join("notes.txt"), "no: [yaml").unwrap();
    let loaded = load(folder.path()).unwrap();
    assert_eq!(
        loaded.cluster.pod("n", "p").unwrap().ips,
        ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(loaded.used["Pod"], 1);
    let warning = loaded.warnings()[0].to_string();
    assert!(
        warning.starts_with("Pod n/p is there twice; the one at ") && warning.contains("late.yml"),
        "{warning}"
    );
}

#[test]
fn nothing_of_use_is_said() {
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(load(empty.path()), Err(LoadError::EmptyFolder(_))));
    let loaded = load_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n").unwrap();
    assert!(matches!(loaded.warnings(), [Warning::Nothing { .. }]));
}

#[test]
fn what_is_wrong_is_named_by_line_document_object_and_field() {
    let policy = |spec: &str| {
        format!(
            "{NAMESPACE}---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{name: p, namespace: n}}\nspec: {spec}\n"
        )
    };
    for (text, says) in [
        (
            policy("{podSelector: {}, ingress: yes please}"),
            "NetworkPolicy n/p: spec.ingress: invalid type: string",
        ),
        (
            policy("{podSelector: {}, ingres: []}"),
            "NetworkPolicy n/p: spec.ingres: no field of this name",
        ),
        (
            policy("{podSelector: {}, egress: [{to: [{podSelector: {}}], port: []}]}"),
            "spec.egress[0].port: no field of this name",
        ),
        (
            policy("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/99}}]}]}"),
            "NetworkPolicy n/p: spec.ingress[0].from[0].ipBlock.cidr: ",
        ),
    ] {
        let message = refused(&text);
        assert!(
            message.starts_with(":5: document 2: ") && message.contains(says),
            "{message}"
        );
    }
    let pod = refused(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: n}\nstatus: {podIP: x}\n",
    );
    assert_eq!(
        pod,
        r#":1: document 1: Pod n/p: status.podIP: "x" is no IP address"#
    );
}

#[test]
fn what_is_no_object_or_no_yaml_is_refused_in_one_line() {
    for (text, says) in [
        ("just text\n", "document 1"),
        ("a: 1\n", "expected apiVersion and kind"),
        ("a: [1\n", ":"),
        ("{\"a\": \n", "not valid JSON"),
        ("{\"a\": 1, \"a\": 2}\n", "key `a` is there twice"),
        ("a: 1\na: 2\n", "1: key `a` is there twice"),
        ("apiVersion: v1\nkind: Namespace\nkind: Pod\n", "kind"),
        ("- a\n- b\n", "document 1"),
    ] {
        let message = refused(text);
        assert!(
            message.contains(says) && !message.contains('\n'),
            "{text:?}: {message}"
        );
    }
}

#[test]
fn lists_of_every_shape_are_taken_apart() {
    let namespace =
        |name: &str| format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}");
    let one = namespace("a");
    for (text, namespaces) in [
        // `kind` behind `items`, as kubectl prints it, and items that do not repeat it.
        (
            "items: [{metadata: {name: a}}]\napiVersion: v1\nkind: NamespaceList\n".to_owned(),
            1,
        ),
        (
            format!(
                "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: List\n  items: [{one}]\n"
            ),
            1,
        ),
        ("apiVersion: v1\nkind: PodList\nitems:\n".to_owned(), 0),
        (
            "{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": null}".to_owned(),
            0,
        ),
        // A flow mapping is YAML, not JSON.
        (one.clone(), 1),
        // `items` of another kind are none of ours.
        (
            format!("apiVersion: x/v1\nkind: Other\nitems: [1]\n---\n{one}\n"),
            1,
        ),
        (
            format!("apiVersion: x/v1\nkind: Other\nitems: {{a: 1}}\n---\n{one}\n"),
            1,
        ),
        (
            format!(
                "---\n# nothing\n---\n{one}\n...\n---\n{}\n---\n",
                namespace("b")
            ),
            2,
        ),
    ] {
        let loaded = load_text(&text).unwrap();
        assert_eq!(
            loaded.used.get("Namespace").copied().unwrap_or(0),
            namespaces,
            "{text}"
        );
        assert!(!loaded.skipped.contains_key("v1 List"), "{text}");
    }
}

#[test]
fn an_object_of_a_json_list_knows_its_line() {
    let message = refused(
        "{\n\"apiVersion\": \"v1\",\n\"items\": [\n  {\"apiVersion\": \"v1\", \"kind\": \"Namespace\",\n   \
         \"metadata\": {\"name\": \"n\"}},\n  {\"apiVersion\": \"v1\", \"kind\": \"Node\",\n   \"metadata\": {}}],\n\
         \"kind\": \"List\"}\n",
    );
    assert_eq!(
        message,
        ":6: document 1, items[1]: Node (without a name): metadata.name: missing; every object has a name"
    );
}

#[test]
fn a_version_that_is_not_read_is_refused_and_kinds_of_other_groups_are_others() {
    let object = |version: &str, kind: &str| {
        format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{podSelector: {{}}}}\n"
        )
    };
    for version in ["networking.k8s.io/v2", "extensions/v1beta1"] {
        assert_eq!(
            refused(&object(version, "NetworkPolicy")),
            format!(
                ":1: document 1: NetworkPolicy default/x: apiVersion: {version} is not read here, \
                 expected networking.k8s.io/v1"
            )
        );
    }
    let slice = "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\naddressType: IPv4\n\
        metadata: {name: s-1, namespace: n, labels: {kubernetes.io/service-name: s}}\n\
        endpoints: [{addresses: [10.0.0.1]}]\nports: [{port: 80}]\n";
    let loaded = load_text(slice).unwrap();
    let ip = "10.0.0.1".parse().unwrap();
    let behind = loaded
        .cluster
        .services_behind(ip, 80, tracer_policy::model::Protocol::Tcp);
    assert_eq!(behind.len(), 1);
    let loaded = load_text(&object("serving.knative.dev/v1", "Service")).unwrap();
    assert_eq!(loaded.skipped["serving.knative.dev/v1 Service"], 1);
}

#[test]
fn policies_of_kinds_that_are_not_read_are_not_passed_over_in_silence() {
    let mut text = NAMESPACE.to_owned();
    for (version, kind) in [
        ("cilium.io/v2", "CiliumNetworkPolicy"),
        ("cilium.io/v2", "CiliumNetworkPolicy"),
        ("cilium.io/v2", "CiliumClusterwideNetworkPolicy"),
        ("projectcalico.org/v3", "StagedNetworkPolicy"),
        ("v1", "ConfigMap"),
    ] {
        let _ = write!(
            text,
            "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n"
        );
    }
    let _ = write!(
        text,
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: n}}\n"
    );
    let loaded = load_text(&text).unwrap();
    let kinds: Vec<_> = loaded
        .warnings()
        .iter()
        .map(|warning| match warning {
            Warning::Policy { kind, place } => (kind.as_str(), place.line),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(
        kinds,
        [
            ("cilium.io/v2 CiliumNetworkPolicy", Some(5)),
            ("cilium.io/v2 CiliumClusterwideNetworkPolicy", Some(13))
        ]
    );
    assert_eq!(loaded.skipped["cilium.io/v2 CiliumNetworkPolicy"], 2);
    let flow = tracer_policy::Flow::tcp("n/p".parse().unwrap(), "192.0.2.1".parse().unwrap(), 1);
    let verdict = loaded.cluster.evaluate(&flow);
    assert_eq!(verdict.verdict, tracer_policy::Outcome::Unknown);
    assert_eq!(
        verdict.reason.unwrap(),
        "cilium.io/v2 CiliumClusterwideNetworkPolicy, cilium.io/v2 CiliumNetworkPolicy could not be read: \
         what they decide is not known"
    );
}

#[test]
fn a_namespaced_policy_that_is_not_read_is_missing_in_its_namespace_only() {
    let loaded = load_text(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: x, namespace: n}\n---\n\
         apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: p, namespace: n}\n\
         - metadata: {name: p, namespace: m}\n",
    )
    .unwrap();
    let is_known = |end: &str| {
        let flow = tracer_policy::Flow::tcp(end.parse().unwrap(), "192.0.2.1".parse().unwrap(), 1);
        loaded.cluster.evaluate(&flow).verdict != tracer_policy::Outcome::Unknown
    };
    assert_eq!([is_known("n/p"), is_known("m/p")], [false, true]);
}

#[test]
fn endpoints_given_again_replace_all_they_said_before() {
    let endpoints = |subsets: &str| {
        format!(
            "apiVersion: v1\nkind: Endpoints\nmetadata: {{name: s, namespace: n}}\nsubsets: {subsets}\n---\n"
        )
    };
    let first = endpoints(
        "[{addresses: [{ip: 10.0.0.1}], ports: [{port: 1}]}, {addresses: [{ip: 10.0.0.2}], ports: [{port: 2}]}]",
    );
    let then = endpoints("[{addresses: [{ip: 10.0.0.3}], ports: [{port: 3}]}]");
    let loaded = load_text(&(first + &then)).unwrap();
    let id = tracer_policy::model::ObjectRef::new("n", "s");
    let ports: Vec<_> = loaded
        .cluster
        .endpoints_of(&id)
        .flat_map(|endpoints| &endpoints.ports)
        .map(|port| port.port)
        .collect();
    assert_eq!(ports, [3]);
}

#[test]
fn manifests_as_people_write_them_are_read() {
    let loaded = load_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, creationTimestamp: 2024-01-01T00:00:00Z}\n\
         spec: {containers: [], volumes: [{name: a, configMap: {name: x, defaultMode: 0644}}]}\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {name: p, creationTimestamp: null}\n\
         spec: {podSelector: {}, ingress: [{ports: [{port: 8200}, {port: web}]}]}\nstatus: {}\n",
    )
    .unwrap();
    assert_eq!((loaded.used["Pod"], loaded.used["NetworkPolicy"]), (1, 1));
    assert_eq!(loaded.warnings(), []);
}

#[test]
fn hostile_input_is_refused_quickly_and_without_a_crash() {
    let deep = format!("a: {}1{}\n", "[".repeat(10_000), "]".repeat(10_000));
    let deep_json = format!(
        "{{\"a\": {}1{}}}\n",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let mut bomb = "a: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        writeln!(bomb, "b{level}: &a{level} [{aliases}]").unwrap();
    }
    let deep_block: String = (0..200).fold(String::new(), |mut text, level| {
        writeln!(text, "{}a:", " ".repeat(level)).unwrap();
        text
    });
    let own = "a: &a [*a]\n".to_owned();
    for (text, says) in [
        (deep, "nested deeper than any Kubernetes object"),
        (deep_json, "nested deeper than any Kubernetes object"),
        (deep_block, "nested deeper than any Kubernetes object"),
        (
            bomb,
            "its aliases stand for more than any Kubernetes object holds",
        ),
        (own, "an alias stands for what it is part of"),
    ] {
        let message = refused(&text);
        assert!(message.ends_with(says), "{message}");
    }
}

#[test]
fn the_hosts_own_addresses_become_the_nodes() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/incident.yaml");
    let mut cluster = load(&file).unwrap().cluster;
    let ips =
        ["172.16.0.9", "10.42.1.1", "192.168.1.100", "169.254.7.7"].map(|ip| ip.parse().unwrap());
    host::merge(&mut cluster, "node-a", &ips);
    let owner = |ip: &str| match cluster.owner(ip.parse().unwrap()) {
        Owner::Node(node, _) => Some(node.name.clone()),
        _ => None,
    };
    assert_eq!(owner("172.16.0.9").as_deref(), Some("node-a"));
    assert_eq!(owner("10.42.1.1").as_deref(), Some("node-a"));
    assert_eq!(
        owner("192.168.1.100").as_deref(),
        Some("master"),
        "it stays the master's"
    );
    assert_eq!(owner("169.254.7.7"), None);
    host::merge(&mut cluster, "node-new", &["172.16.0.10".parse().unwrap()]);
    assert!(cluster.node("node-new").is_some());
    assert!(host::addresses().is_ok());
}

#[test]
fn admin_policies_are_read_and_what_is_not_known_of_them_is_said() {
    let policy = |name: &str, peer: &str| {
        format!(
            "---\napiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\n\
             metadata: {{name: {name}}}\nspec:\n  priority: 1\n  subject: {{namespaces: {{}}}}\n  \
             ingress: [{{action: Deny, from: [{peer}]}}]\n"
        )
    };
    let text = format!(
        "{NAMESPACE}{}{}",
        policy("good", "{namespaces: {}}"),
        policy("new", "{galaxies: {}}")
    );
    let loaded = load_text(&text).unwrap();
    assert_eq!(loaded.used["AdminNetworkPolicy"], 2);
    let names: Vec<_> = loaded
        .cluster
        .ordered_policies()
        .map(|policy| (policy.id().name(), policy.problem().is_some()))
        .collect();
    assert_eq!(names, [("good", false), ("new", true)]);
    let said: Vec<_> = loaded.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("AdminNetworkPolicy new: spec.ingress[0].from[0].galaxies: unknown field"),
        "{said:?}"
    );
}

#[test]
fn a_chart_beside_the_objects_is_passed_over_but_not_in_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let template = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Values.name }}\n";
    for (name, text) in [
        ("values.yaml", "replicas: 1\n"),
        ("Chart.yaml", "apiVersion: v2\nname: x\n"),
        ("list.yaml", "- a\n- b\n"),
        ("package.json", "{\"name\": \"x\"}"),
        ("kustomization.yaml", "resources: [n.yaml]\n"),
        ("template.yaml", template),
        ("n.yaml", NAMESPACE),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let loaded = load(folder.path()).unwrap();
    assert_eq!(loaded.used["Namespace"], 1);
    let said: Vec<_> = loaded.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 7, "{said:?}");
    assert!(
        said[6].ends_with("values.yaml:1: document 1: passed over: no Kubernetes object"),
        "{said:?}"
    );
    assert!(
        said[5].contains("template.yaml:4: document 1: passed over: a template"),
        "{said:?}"
    );
    for name in ["values.yaml", "list.yaml", "template.yaml"] {
        let message = load(&folder.path().join(name)).unwrap_err().to_string();
        assert_eq!(
            message.contains("helm template"),
            name == "template.yaml",
            "{message}"
        );
    }
    // What is broken without being a template is not what was meant.
    fs::write(folder.path().join("broken.yaml"), "a: [1\n").unwrap();
    assert!(matches!(load(folder.path()), Err(LoadError::Syntax { .. })));
}

#[test]
fn a_list_without_more_is_a_list_of_objects() {
    let objects = |text: &str| load_text(text).unwrap().used["Namespace"];
    let one = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}}"#;
    let two = r#"{"apiVersion":"v1","kind":"NamespaceList","items":[{"metadata":{"name":"b"}}]}"#;
    assert_eq!(objects(&format!("[{one},\n{two}]\n")), 2);
    assert_eq!(objects(&format!("- {one}\n- {two}\n")), 2);
    let message = refused(&format!("[{one},\n  1]\n"));
    assert_eq!(
        message,
        ":2: document 1, items[1]: no Kubernetes object: expected apiVersion and kind, as `kubectl get -o yaml` \
         prints them"
    );
    assert!(matches!(
        load_text("[]").unwrap().warnings(),
        [Warning::Nothing { .. }]
    ));
}
