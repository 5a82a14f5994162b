//! Pods.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::{ContainerPort, Handler, Phase, Pod, Probe, ProbeKind, Workload};
use super::{ObjectError, Reader, push_once};

/// Labels by which a controller tells its generations apart.
const POD_TEMPLATE_HASH: &str = "pod-template-hash";

impl TryFrom<&core::Pod> for Pod {
    type Error = ObjectError;

    fn try_from(object: &core::Pod) -> Result<Self, ObjectError> {
        let reader = Reader::new("Pod", &object.metadata);
        let spec = object.spec.as_ref();
        let status = object.status.as_ref();

        let mut ips = Vec::new();
        if let Some(ip) = status
            .and_then(|status| status.pod_ip.as_deref())
            .filter(present)
        {
            push_once(&mut ips, reader.ip(|| "status.podIP".into(), ip)?);
        }
        let more = status
            .and_then(|status| status.pod_ips.as_deref())
            .unwrap_or_default();
        for (index, entry) in more.iter().enumerate() {
            if !entry.ip.is_empty() {
                let field = || format!("status.podIPs[{index}].ip");
                push_once(&mut ips, reader.ip(field, &entry.ip)?);
            }
        }

        // What is none helps nobody; the node's own object says it, too.
        let hosts = status.and_then(|status| status.host_ips.as_deref());
        let hosts = hosts.into_iter().flatten().map(|entry| entry.ip.as_str());
        let host = status.and_then(|status| status.host_ip.as_deref());
        let mut host_ips = Vec::new();
        for ip in host
            .into_iter()
            .chain(hosts)
            .filter_map(|ip| ip.parse().ok())
        {
            push_once(&mut host_ips, ip);
        }

        let (mut ports, mut probes) = (Vec::new(), Vec::new());
        if let Some(spec) = spec {
            let init = spec.init_containers.as_deref().unwrap_or_default();
            let all = [
                ("spec.initContainers", init),
                ("spec.containers", &spec.containers),
            ];
            for (list, containers) in all {
                for (index, container) in containers.iter().enumerate() {
                    let at = format!("{list}[{index}]");
                    let own = container_ports(&reader, &at, container)?;
                    // Only an init container that restarts (a sidecar) is probed.
                    let probed = list == "spec.containers"
                        || container.restart_policy.as_deref() == Some("Always");
                    if probed {
                        probes.extend(container_probes(&reader, &at, container, &own)?);
                    }
                    ports.extend(own);
                }
            }
        }

        // There are ten thousands of them, and lists grow by fours.
        ports.shrink_to_fit();
        probes.shrink_to_fit();
        ips.shrink_to_fit();
        host_ips.shrink_to_fit();
        Ok(Self {
            id: reader.id()?,
            uid: object.metadata.uid.clone(),
            labels: reader.labels(),
            ips,
            node: spec
                .and_then(|spec| spec.node_name.clone())
                .filter(|name| !name.is_empty()),
            host_ips,
            host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
            phase: match status.and_then(|status| status.phase.as_deref()) {
                Some("Pending") => Phase::Pending,
                Some("Running") => Phase::Running,
                Some("Succeeded") => Phase::Succeeded,
                Some("Failed") => Phase::Failed,
                _ => Phase::Unknown,
            },
            ports,
            probes,
            workload: workload(object),
            mounts_api_token: mounts_api_token(object),
            started: status
                .and_then(|status| status.start_time.as_ref())
                .or(object.metadata.creation_timestamp.as_ref())
                .map(|time| time.0),
            ready: status
                .and_then(|status| status.conditions.as_deref())
                .and_then(|conditions| conditions.iter().find(|own| own.type_ == "Ready"))
                .map(|condition| condition.status == "True"),
            scrape_port: scrape_port(object),
        })
    }
}

fn present(text: &&str) -> bool {
    !text.is_empty()
}

fn container_ports(
    reader: &Reader<'_>,
    at: &str,
    container: &core::Container,
) -> Result<Vec<ContainerPort>, ObjectError> {
    let ports = container.ports.as_deref().unwrap_or_default();
    ports
        .iter()
        .enumerate()
        .map(|(index, port)| {
            let field = |name: &str| format!("{at}.ports[{index}].{name}");
            Ok(ContainerPort {
                name: port.name.clone().filter(|name| !name.is_empty()),
                port: reader.port(|| field("containerPort"), port.container_port)?,
                protocol: reader.protocol(|| field("protocol"), port.protocol.as_deref())?,
            })
        })
        .collect()
}

fn container_probes(
    reader: &Reader<'_>,
    at: &str,
    container: &core::Container,
    ports: &[ContainerPort],
) -> Result<Vec<Probe>, ObjectError> {
    let mut probes = Vec::new();
    let kinds = [
        (ProbeKind::Startup, "startupProbe", &container.startup_probe),
        (
            ProbeKind::Readiness,
            "readinessProbe",
            &container.readiness_probe,
        ),
        (
            ProbeKind::Liveness,
            "livenessProbe",
            &container.liveness_probe,
        ),
    ];
    for (kind, field, probe) in kinds {
        let Some(probe) = probe else { continue };
        let at = format!("{at}.{field}");
        let found = match (&probe.http_get, &probe.tcp_socket, &probe.grpc) {
            (Some(get), _, _) => http(reader, &at, get, ports)?,
            (_, Some(tcp), _) if tcp.host.as_deref().is_none_or(str::is_empty) => {
                target(reader, &format!("{at}.tcpSocket.port"), &tcp.port, ports)?
                    .map(|port| (Handler::Tcp, port))
            }
            (_, _, Some(grpc)) => {
                let port = reader.port(|| format!("{at}.grpc.port"), grpc.port)?;
                Some((Handler::Grpc, port))
            }
            // exec makes no traffic; a `host` sends it elsewhere.
            _ => None,
        };
        let Some((handler, port)) = found else {
            continue;
        };
        let seconds = |given: Option<i32>, default: u32| {
            given
                .and_then(|given| u32::try_from(given).ok())
                .filter(|given| *given > 0)
                .unwrap_or(default)
        };
        probes.push(Probe {
            kind,
            container: container.name.clone(),
            handler,
            port,
            period_seconds: seconds(probe.period_seconds, 10),
            timeout_seconds: seconds(probe.timeout_seconds, 1),
            failure_threshold: seconds(probe.failure_threshold, 3),
        });
    }
    let hooks = container.lifecycle.as_ref();
    let hooks = [
        (
            "postStart",
            hooks.and_then(|hooks| hooks.post_start.as_ref()),
        ),
        ("preStop", hooks.and_then(|hooks| hooks.pre_stop.as_ref())),
    ];
    for (field, hook) in hooks {
        let Some(get) = hook.and_then(|hook| hook.http_get.as_ref()) else {
            continue;
        };
        let found = http(reader, &format!("{at}.lifecycle.{field}"), get, ports)?;
        if let Some((handler, port)) = found {
            probes.push(Probe {
                kind: ProbeKind::Lifecycle,
                container: container.name.clone(),
                handler,
                port,
                period_seconds: 0,
                timeout_seconds: 0,
                failure_threshold: 1,
            });
        }
    }
    Ok(probes)
}

/// Handler and port of an HTTP probe; `None` where it does not go to the pod.
fn http(
    reader: &Reader<'_>,
    at: &str,
    get: &core::HTTPGetAction,
    ports: &[ContainerPort],
) -> Result<Option<(Handler, u16)>, ObjectError> {
    if get.host.as_ref().is_some_and(|host| !host.is_empty()) {
        return Ok(None);
    }
    let port = target(reader, &format!("{at}.httpGet.port"), &get.port, ports)?;
    let handler = Handler::Http {
        path: get.path.clone().unwrap_or_else(|| "/".to_owned()),
        tls: get.scheme.as_deref() == Some("HTTPS"),
    };
    Ok(port.map(|port| (handler, port)))
}

/// A probe's port: a number, a number as text, or a name in that container's ports whatever their
/// protocol (kubelet's `findPortByName`). A name that is not there makes the probe fail without traffic.
fn target(
    reader: &Reader<'_>,
    field: &str,
    port: &IntOrString,
    ports: &[ContainerPort],
) -> Result<Option<u16>, ObjectError> {
    match port {
        IntOrString::Int(number) => reader.port(|| field.to_owned(), *number).map(Some),
        IntOrString::String(text) => Ok(ports
            .iter()
            .find(|port| port.name.as_ref() == Some(text))
            .map(|port| port.port)
            .or_else(|| text.parse().ok().filter(|port| *port > 0))),
    }
}

fn workload(object: &core::Pod) -> Option<Workload> {
    let owners = object.metadata.owner_references.as_deref()?;
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    // A ReplicaSet made by a Deployment is named after it and the pod-template-hash.
    let hash = object
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(POD_TEMPLATE_HASH));
    if owner.kind == "ReplicaSet"
        && let Some(hash) = hash
        && let Some(name) = owner.name.strip_suffix(hash.as_str())
        && let Some(name) = name.strip_suffix('-')
    {
        return Some(Workload {
            kind: "Deployment".to_owned(),
            name: name.to_owned(),
        });
    }
    Some(Workload {
        kind: owner.kind.clone(),
        name: owner.name.clone(),
    })
}

/// Where a token is mounted, whichever kind of volume holds it (a Secret before Kubernetes 1.22).
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The API server mounts the token at admission, by what pod and service account say. So an object that
/// was read back (it has a uid) shows the outcome; in a manifest only `automountServiceAccountToken`
/// tells, true by default.
fn mounts_api_token(object: &core::Pod) -> bool {
    let Some(spec) = &object.spec else {
        return false;
    };
    let volume = spec.volumes.iter().flatten().any(|volume| {
        volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten())
            .any(|source| source.service_account_token.is_some())
    });
    let mounted = || {
        let init = spec.init_containers.iter().flatten();
        init.chain(&spec.containers)
            .flat_map(|container| container.volume_mounts.iter().flatten())
            .any(|mount| mount.mount_path == TOKEN_PATH)
    };
    let read_back = object.metadata.uid.is_some();
    volume || mounted() || (!read_back && spec.automount_service_account_token != Some(false))
}

/// Annotations are anybody's text: what is no port is no offer, and no error either.
fn scrape_port(object: &core::Pod) -> Option<u16> {
    let annotation = |key: &str| object.metadata.annotations.as_ref()?.get(key);
    (annotation("prometheus.io/scrape")? == "true")
        .then(|| annotation("prometheus.io/port")?.parse().ok())
        .flatten()
}
