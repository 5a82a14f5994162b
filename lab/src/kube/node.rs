//! containerd and kubelet on a node.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::control_plane::ControlPlane;
use super::program::{self, Server};
use super::{PAUSE_IMAGE, image};
use crate::command;
use crate::netns::Netns;

const PATIENCE: Duration = Duration::from_mins(3);
const SCRIPT: &str = include_str!("node.sh");

/// A node of a cluster: its kubelet and container runtime in namespaces of their own for mounts and
/// processes, and in the lab's for the network. Every container ends with it.
#[derive(Debug)]
pub struct Node<'a> {
    server: Server,
    netns: &'a Netns,
    folder: TempDir,
}

impl<'a> Node<'a> {
    /// Starts the node in `netns`, whose pods are bridged on `cni0` with addresses of `pods`
    /// (`10.42.1.0/24`) from 100 on. `images` are archives to import beside [`super::HTTPD_IMAGE`].
    /// Returns once the node is ready.
    pub fn start(
        netns: &'a Netns,
        plane: &ControlPlane<'_>,
        name: &str,
        address: Ipv4Addr,
        images: &[PathBuf],
    ) -> Result<Self> {
        // The short path is for containerd's socket: 107 bytes are all a path of one may have.
        let folder = tempfile::Builder::new().prefix("tracer-node-").tempdir()?;
        let path = folder.path();
        write_configuration(path)?;
        std::fs::copy(plane.kubeconfig(), path.join("kubeconfig"))?;
        let mut images = images.to_vec();
        images.extend(image::write(path)?);
        let programs = std::env::var_os(super::PROGRAMS).unwrap_or_default();
        let mut folders: Vec<_> = std::env::split_paths(&programs).collect();
        folders.extend(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from));
        let search: OsString = std::env::join_paths(folders)?;
        let tools = [
            program::find("containerd")?,
            program::find("ctr")?,
            program::find("kubelet")?,
        ];
        let mut server =
            Server::start(netns, "kubelet", &command::find("unshare")?, path, |node| {
                node.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
                    .args(["--", "/bin/sh", "-c", SCRIPT, "node"])
                    .arg(path)
                    .args(tools)
                    .arg(name)
                    .arg(address.to_string())
                    .args(images)
                    .env("PATH", search);
            })?;
        let ready = || {
            let condition = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
            let status = plane.kubectl(&["get", "node", name, "-o", condition]);
            Ok(status.is_ok_and(|status| status == "True"))
        };
        server.wait(PATIENCE, ready)?;
        Ok(Self {
            server,
            netns,
            folder,
        })
    }

    /// A program as an administrator on the node would run it: with the node's network and files.
    pub fn spawn(&self, program: &Path, configure: impl FnOnce(&mut Command)) -> Result<Child> {
        let inside = self.first_process()?;
        self.netns.spawn(command::find("nsenter")?, |nsenter| {
            nsenter
                .args(["--mount", "--target", &inside, "--"])
                .arg(program);
            configure(nsenter);
        })
    }

    /// Kills all of a container's processes with SIGKILL, by the id that `status.containerStatuses` tells
    /// (`containerd://...`). The kubelet will see to what follows.
    pub fn kill_container(&self, id: &str) -> Result<()> {
        let id = id.trim_start_matches("containerd://");
        let socket = self.folder.path().join("containerd.sock");
        let child = self.spawn(&program::find("ctr")?, |ctr| {
            ctr.arg("--address")
                .arg(socket)
                .args(["--namespace", "k8s.io", "tasks", "kill", "--all"])
                .args(["--signal", "SIGKILL", id])
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
        })?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "cannot kill container {id}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// The node's end of each pod's cable, by the pod's addresses: what the CNI plugin has answered, as
    /// libcni keeps it until the pod is gone
    /// (<https://github.com/containernetworking/cni/blob/v1.1.2/libcni/api.go>, `cacheAdd`).
    pub fn cables(&self) -> Result<BTreeMap<IpAddr, String>> {
        let results = format!("/proc/{}/root/var/lib/cni/results", self.first_process()?);
        let mut cables = BTreeMap::new();
        // There is no folder before the first pod.
        for file in std::fs::read_dir(&results).into_iter().flatten() {
            let path = file?.path();
            let Ok(text) = std::fs::read(&path) else {
                continue; // gone meanwhile
            };
            let result: Value = serde_json::from_slice(&text)
                .with_context(|| format!("{} is no JSON", path.display()))?;
            let mut interfaces = result["result"]["interfaces"]
                .as_array()
                .into_iter()
                .flatten();
            // The loopback plugin's answer names none.
            let Some(cable) = interfaces
                .find(|interface| {
                    let on_node = interface["sandbox"].as_str().is_none_or(str::is_empty);
                    on_node && interface["name"] != "cni0"
                })
                .and_then(|interface| interface["name"].as_str())
            else {
                continue;
            };
            for ip in result["result"]["ips"].as_array().into_iter().flatten() {
                let ip = ip["address"].as_str().unwrap_or_default();
                let net: IpNet = ip
                    .parse()
                    .with_context(|| format!("{}: `{ip}` is no address", path.display()))?;
                cables.insert(net.addr(), cable.to_owned());
            }
        }
        Ok(cables)
    }

    /// The id of the first process in the node's namespaces.
    fn first_process(&self) -> Result<String> {
        // `unshare`, which stays outside of the namespaces it makes for its child.
        let outside = self.server.id();
        let children = format!("/proc/{outside}/task/{outside}/children");
        let inside = std::fs::read_to_string(&children)
            .with_context(|| format!("cannot read {children}"))?;
        let Some(inside) = inside.split_ascii_whitespace().next() else {
            bail!("the node is gone\n{}", self.server.last_words());
        };
        Ok(inside.to_owned())
    }

    /// The end of the kubelet's log, for messages.
    pub fn last_words(&self) -> String {
        self.server.last_words()
    }
}

fn write_configuration(folder: &Path) -> Result<()> {
    let shown = folder.display();
    let cni = program::find("bridge")?;
    let plugins = cni.parent().context("a program in no folder")?.display();
    std::fs::write(
        folder.join("containerd.toml"),
        format!(
            "version = 2\n\
             root = \"{shown}/root\"\n\
             state = \"{shown}/state\"\n\
             [grpc]\n\
             address = \"{shown}/containerd.sock\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n\
             sandbox_image = \"{PAUSE_IMAGE}\"\n\
             disable_apparmor = true\n\
             restrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
             snapshotter = \"native\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
             bin_dir = \"{plugins}\"\n\
             conf_dir = \"{shown}/net.d\"\n"
        ),
    )?;
    std::fs::create_dir(folder.join("net.d"))?;
    let network = json!({
        "cniVersion": "0.4.0",
        "name": "lab",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.42.1.0/24", "rangeStart": "10.42.1.100", "gateway": "10.42.1.1"}]],
                "dataDir": folder.join("addresses"),
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    });
    std::fs::write(
        folder.join("net.d/10-lab.conflist"),
        serde_json::to_vec(&network)?,
    )?;
    let never = json!({
        "memory.available": "0%",
        "nodefs.available": "0%",
        "imagefs.available": "0%",
        "nodefs.inodesFree": "0%",
    });
    // JSON is YAML.
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "evictionHard": never,
        // Else a disk that is fuller than 85 % costs the imported images: there is nowhere to pull them from.
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": false,
        "syncFrequency": "5s",
    });
    std::fs::write(folder.join("kubelet.yaml"), serde_json::to_vec(&kubelet)?)?;
    Ok(())
}
