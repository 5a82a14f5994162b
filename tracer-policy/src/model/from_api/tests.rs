use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::*;
use super::*;

fn api<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

fn pod(object: Value) -> Result<Pod, ObjectError> {
    Pod::try_from(&api::<core::Pod>(object))
}

fn node(object: Value) -> Result<Node, ObjectError> {
    Node::try_from(&api::<core::Node>(object))
}

#[test]
fn a_namespace_gets_the_label_the_api_server_adds() {
    let object = api::<core::Namespace>(json!({"metadata": {"name": "a", "labels": {"x": "y"}}}));
    let namespace = Namespace::try_from(&object).unwrap();
    assert_eq!(namespace.labels["kubernetes.io/metadata.name"], "a");
    assert_eq!(namespace.labels["x"], "y");
}

#[test]
fn a_pod_keeps_both_families_once_and_all_declared_ports() {
    let pod = pod(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {
            "nodeName": "node-a", "automountServiceAccountToken": false,
            "initContainers": [{"name": "i", "ports": [{"containerPort": 1, "name": "early"}]}],
            "containers": [{"name": "c", "ports": [{"containerPort": 53, "protocol": "UDP"}]}]},
        "status": {"phase": "Running", "podIP": "10.42.1.10",
            "podIPs": [{"ip": "10.42.1.10"}, {"ip": "fd00::1"}]}}))
    .unwrap();
    assert_eq!(
        pod.ips,
        [
            "10.42.1.10".parse::<IpAddr>().unwrap(),
            "fd00::1".parse().unwrap()
        ]
    );
    assert_eq!(
        pod.ports,
        [
            ContainerPort {
                name: Some("early".into()),
                port: 1,
                protocol: Protocol::Tcp
            },
            ContainerPort {
                name: None,
                port: 53,
                protocol: Protocol::Udp
            },
        ]
    );
    assert_eq!(
        (pod.phase, pod.node.as_deref()),
        (Phase::Running, Some("node-a"))
    );
    assert!(!pod.mounts_api_token && !pod.host_network && !pod.phase.finished());
}

#[test]
fn probes_resolve_their_ports_in_their_own_container_and_leave_out_what_sends_nothing_here() {
    let get = |port: Value| json!({"httpGet": {"port": port, "scheme": "HTTPS", "path": "/x"}});
    let pod = pod(json!({
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {
            "initContainers": [
                {"name": "once", "readinessProbe": get(json!(1))},
                {"name": "sidecar", "restartPolicy": "Always", "readinessProbe": get(json!(2))}],
            "containers": [
                {"name": "a", "ports": [{"name": "web", "containerPort": 80}],
                 "startupProbe": get(json!("web")),
                 "livenessProbe": {"exec": {"command": ["true"]}},
                 "readinessProbe": {"grpc": {"port": 90}, "periodSeconds": 3}},
                {"name": "b",
                 "startupProbe": get(json!("web")),
                 "livenessProbe": {"tcpSocket": {"port": "8080", "host": ""}},
                 "readinessProbe": {"httpGet": {"port": 80, "host": "192.0.2.1"}},
                 "lifecycle": {"preStop": {"httpGet": {"port": 70}}}}]}}))
    .unwrap();
    let found: Vec<_> = pod
        .probes
        .iter()
        .map(|probe| (probe.kind, probe.container.as_str(), probe.port))
        .collect();
    assert_eq!(
        found,
        [
            (ProbeKind::Readiness, "sidecar", 2),
            (ProbeKind::Startup, "a", 80),
            (ProbeKind::Readiness, "a", 90),
            (ProbeKind::Liveness, "b", 8080),
            (ProbeKind::Lifecycle, "b", 70),
        ]
    );
    assert_eq!(
        pod.probes[1].handler,
        Handler::Http {
            path: "/x".into(),
            tls: true
        }
    );
    assert_eq!(
        (pod.probes[1].period_seconds, pod.probes[1].timeout_seconds),
        (10, 1)
    );
    assert_eq!(
        (&pod.probes[2].handler, pod.probes[2].period_seconds),
        (&Handler::Grpc, 3)
    );
}

#[test]
fn a_token_is_mounted_where_the_object_shows_it_or_a_manifest_does_not_refuse_it() {
    let mounts = |uid: Option<&str>, mut spec: Value| {
        spec["containers"] = json!([{"name": "c", "volumeMounts": spec["mounts"].take()}]);
        pod(json!({"metadata": {"name": "p", "namespace": "n", "uid": uid}, "spec": spec}))
            .unwrap()
            .mounts_api_token
    };
    let projected = json!([{"name": "t", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token"}}]}}]);
    let legacy =
        json!([{"name": "t", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
    assert!(mounts(None, json!({})));
    assert!(!mounts(
        None,
        json!({"automountServiceAccountToken": false})
    ));
    // Read back without one: its ServiceAccount refuses it.
    assert!(!mounts(Some("u"), json!({})));
    assert!(mounts(Some("u"), json!({"volumes": projected})));
    assert!(mounts(Some("u"), json!({"mounts": legacy})));
}

#[test]
fn a_replica_set_stands_for_its_deployment() {
    let owned = |kind: &str, name: &str, hash: Option<&str>| {
        let labels = hash
            .map(|hash| json!({"pod-template-hash": hash}))
            .unwrap_or(json!({}));
        let owner = json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u",
                            "controller": true}]);
        let metadata =
            json!({"name": "p", "namespace": "n", "labels": labels, "ownerReferences": owner});
        let workload = pod(json!({"metadata": metadata}))
            .unwrap()
            .workload
            .unwrap();
        (workload.kind, workload.name)
    };
    let is = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    assert_eq!(
        owned("ReplicaSet", "web-5d4f", Some("5d4f")),
        is("Deployment", "web")
    );
    assert_eq!(
        owned("ReplicaSet", "web-5d4f", None),
        is("ReplicaSet", "web-5d4f")
    );
    assert_eq!(
        owned("StatefulSet", "vault", None),
        is("StatefulSet", "vault")
    );
}

#[test]
fn a_node_has_every_address_its_processes_may_send_from() {
    let node = node(json!({
        "metadata": {"name": "node-a",
            "labels": {"node-role.kubernetes.io/control-plane": "true"},
            "annotations": {
                "projectcalico.org/IPv4Address": "10.10.0.11/16",
                "projectcalico.org/IPv4VXLANTunnelAddr": "10.42.1.64",
                "flannel.alpha.coreos.com/public-ip": "not an address",
                "k3s.io/internal-ip": "10.10.0.11, fd00:10::11"}},
        "spec": {"podCIDR": "10.42.1.0/24", "podCIDRs": ["10.42.1.0/24", "fd00:42:1::/64"]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": "10.10.0.11"},
            {"type": "ExternalIP", "address": "203.0.113.5"},
            {"type": "Hostname", "address": "node-a"}]}}))
    .unwrap();
    let found: Vec<_> = node
        .addresses
        .iter()
        .map(|address| (address.ip.to_string(), address.kind))
        .collect();
    let expected = [
        ("10.10.0.11", NodeAddressKind::Internal),
        ("203.0.113.5", NodeAddressKind::External),
        ("10.42.1.1", NodeAddressKind::PodGateway),
        ("10.42.1.0", NodeAddressKind::TunnelEndpoint),
        ("fd00:42:1::1", NodeAddressKind::PodGateway),
        ("fd00:42:1::", NodeAddressKind::TunnelEndpoint),
        ("10.42.1.64", NodeAddressKind::Annotation),
        ("fd00:10::11", NodeAddressKind::Annotation),
    ];
    assert_eq!(found, expected.map(|(ip, kind)| (ip.to_owned(), kind)));
    assert!(node.control_plane);
}

#[test]
fn services_and_what_stands_behind_them() {
    let service = Service::try_from(&api::<core::Service>(json!({
        "metadata": {"name": "s", "namespace": "n"},
        "spec": {"clusterIP": "10.43.0.1", "clusterIPs": ["10.43.0.1", "fd00:43::1"],
            "selector": {"a": "b"},
            "ports": [{"port": 443, "targetPort": 6443, "nodePort": 30443}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}, {"hostname": "x"}]}}})))
    .unwrap();
    assert_eq!(service.ips.len(), 3);
    assert_eq!(
        (service.ports[0].port, service.ports[0].node_port),
        (443, Some(30443))
    );

    let headless =
        api::<core::Service>(json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "None"}}));
    let headless = Service::try_from(&headless).unwrap();
    assert!(headless.ips.is_empty());
    assert_eq!(headless.id, ObjectRef::new("default", "s"));

    let target = json!({"kind": "Pod", "name": "p", "namespace": "n"});
    let slice = from_endpoint_slice(&api::<discovery::EndpointSlice>(json!({
        "metadata": {"name": "s-x", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4", "ports": [{"port": 6443, "name": "https"}, {"name": "any"}],
        "endpoints": [{"addresses": ["192.168.1.100"], "targetRef": target}]})))
    .unwrap()
    .unwrap();
    assert_eq!(slice.service, ObjectRef::new("n", "s"));
    assert_eq!(slice.ports.len(), 1);
    assert_eq!(slice.endpoints[0].pod, Some(ObjectRef::new("n", "p")));

    let subsets = from_endpoints(&api::<core::Endpoints>(json!({
        "metadata": {"name": "s", "namespace": "n"},
        "subsets": [
            {"addresses": [{"ip": "10.0.0.1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}],
             "ports": [{"port": 1}]},
            {"addresses": [{"ip": "10.0.0.3"}], "ports": [{"port": 2, "protocol": "UDP"}]}]})))
    .unwrap();
    assert_eq!(subsets.len(), 2);
    assert_eq!(subsets[0].endpoints.len(), 2);
    assert_eq!(subsets[1].ports[0].protocol, Protocol::Udp);
    assert_ne!(subsets[0].id, subsets[1].id);
}

#[test]
fn what_is_wrong_is_named_by_object_and_field() {
    let cases = [
        (
            pod(json!({"metadata": {"name": "p", "namespace": "n"},
                       "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "x"}]}}))
            .unwrap_err(),
            r#"Pod n/p: status.podIPs[1].ip: "x" is no IP address"#,
        ),
        (
            pod(
                json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [
                {"name": "c", "ports": [{"containerPort": 70000}]}]}}),
            )
            .unwrap_err(),
            "Pod n/p: spec.containers[0].ports[0].containerPort: 70000 is no port number from 1 to 65535",
        ),
        (
            pod(
                json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [
                {"name": "c", "ports": [{"containerPort": 7, "protocol": "tcp"}]}]}}),
            )
            .unwrap_err(),
            r#"Pod n/p: spec.containers[0].ports[0].protocol: "tcp" is none of TCP, UDP, SCTP"#,
        ),
        (
            node(json!({"metadata": {"name": "a"}, "spec": {"podCIDR": "10.42"}})).unwrap_err(),
            r#"Node a: spec.podCIDR: "10.42" is no range such as 10.42.1.0/24"#,
        ),
        (
            pod(json!({"metadata": {"namespace": "n"}})).unwrap_err(),
            "Pod n/(without a name): metadata.name: missing; every object has a name",
        ),
    ];
    for (error, message) in cases {
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn readiness_and_the_scrape_port_are_read_where_they_are_said() {
    let read = |annotations: Value, conditions: Value| {
        let pod = pod(json!({
            "metadata": {"name": "p", "annotations": annotations},
            "status": {"conditions": conditions}}))
        .unwrap();
        (pod.scrape_port, pod.ready)
    };
    let scrape = |offer: &str, port: &str| json!({"prometheus.io/scrape": offer, "prometheus.io/port": port});
    let ready = |status: &str| json!([{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": status}]);
    assert_eq!(
        read(scrape("true", "9102"), ready("True")),
        (Some(9102), Some(true))
    );
    assert_eq!(
        read(scrape("false", "9102"), ready("False")),
        (None, Some(false))
    );
    assert_eq!(read(scrape("true", "metrics"), json!([])), (None, None));
}
