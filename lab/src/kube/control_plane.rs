//! etcd, API server and controller manager.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tempfile::TempDir;

use super::program::{self, Server};
use crate::command;
use crate::netns::Netns;

const PATIENCE: Duration = Duration::from_mins(3);
const ETCD: &str = "http://127.0.0.1:12379";
const ETCD_PEERS: &str = "http://127.0.0.1:12380";
const TOKEN: &str = "lab-administrator";

/// The servers of a cluster, in one namespace. Service addresses are of 10.43.0.0/16, so that
/// `default/kubernetes` is [`crate::plan::KUBERNETES_SERVICE`].
#[derive(Debug)]
pub struct ControlPlane<'a> {
    // Order of drop: who calls before who answers.
    controllers: Option<Server>,
    api: Option<Server>,
    _etcd: Server,
    netns: &'a Netns,
    address: Ipv4Addr,
    port: u16,
    folder: TempDir,
}

impl<'a> ControlPlane<'a> {
    /// Starts them in `netns`, the API server on `address`, which must not be a loopback one:
    /// `default/kubernetes` would have no endpoint. Returns once the API server is ready and every
    /// namespace gets its default service account.
    pub fn start(netns: &'a Netns, address: Ipv4Addr, port: u16) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tracer-kube-").tempdir()?;
        let key = folder.path().join("accounts.key");
        let rsa = ["genrsa", "-out", &key.to_string_lossy(), "2048"].map(str::to_owned);
        command::run("openssl", &rsa, "")?;
        let tokens = format!("{TOKEN},admin,admin,\"system:masters\"\n");
        std::fs::write(folder.path().join("tokens.csv"), tokens)?;
        std::fs::write(
            folder.path().join("kubeconfig"),
            format!(
                "apiVersion: v1\n\
                 kind: Config\n\
                 clusters: [{{name: lab, cluster: {{server: \"https://{address}:{port}\", insecure-skip-tls-verify: true}}}}]\n\
                 users: [{{name: admin, user: {{token: {TOKEN}}}}}]\n\
                 contexts: [{{name: lab, context: {{cluster: lab, user: admin}}}}]\n\
                 current-context: lab\n"
            ),
        )?;
        let etcd = Server::start(
            netns,
            "etcd",
            &program::find("etcd")?,
            folder.path(),
            |etcd| {
                etcd.args(["--data-dir", "etcd", "--unsafe-no-fsync"])
                    .args(["--listen-client-urls", ETCD])
                    .args(["--advertise-client-urls", ETCD])
                    .args(["--listen-peer-urls", ETCD_PEERS])
                    .args(["--initial-advertise-peer-urls", ETCD_PEERS])
                    .args(["--initial-cluster", &format!("default={ETCD_PEERS}")]);
            },
        )?;
        let mut plane = Self {
            controllers: None,
            api: None,
            _etcd: etcd,
            netns,
            address,
            port,
            folder,
        };
        plane.start_api_server()?;
        plane.start_controllers()?;
        Ok(plane)
    }

    /// For clients in a namespace that reaches the API server.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Kills the API server; what it holds stays in etcd.
    pub fn stop_api_server(&mut self) {
        self.api = None;
    }

    /// Starts it, again or for the first time, and waits until it is ready.
    pub fn start_api_server(&mut self) -> Result<()> {
        let folder = self.folder.path();
        let mut api = Server::start(
            self.netns,
            "kube-apiserver",
            &program::find("kube-apiserver")?,
            folder,
            |api| {
                api.args(["--etcd-servers", ETCD, "--cert-dir", "certs"])
                    .args(["--bind-address", "0.0.0.0"])
                    .args(["--advertise-address", &self.address.to_string()])
                    .args(["--secure-port", &self.port.to_string()])
                    .args(["--service-cluster-ip-range", "10.43.0.0/16"])
                    .args(["--service-account-issuer", "https://kubernetes.default.svc"])
                    .args(["--service-account-key-file", "accounts.key"])
                    .args(["--service-account-signing-key-file", "accounts.key"])
                    .args(["--token-auth-file", "tokens.csv"])
                    // No DNS knows the nodes' names.
                    .args(["--kubelet-preferred-address-types", "InternalIP"])
                    .args(["--authorization-mode", "RBAC", "--allow-privileged=true"]);
            },
        )?;
        let ready = || Ok(self.kubectl(&["get", "--raw", "/readyz"]).is_ok());
        api.wait(PATIENCE, ready)?;
        self.api = Some(api);
        Ok(())
    }

    /// Runs kubectl as the administrator, and returns what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with_input(arguments, "")
    }

    /// The same, with `input` on kubectl's stdin, for `-f -`.
    pub fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let kubectl = program::find("kubectl")?;
        let config = self.kubeconfig();
        let cache = self.folder.path().join("kubectl-cache");
        let mut all = vec![
            "--kubeconfig".to_owned(),
            config.to_string_lossy().into_owned(),
            "--cache-dir".to_owned(),
            cache.to_string_lossy().into_owned(),
        ];
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self.netns
            .run_with_input(&kubectl.to_string_lossy(), &all, input)
    }

    /// Binds every pod that waits for a node to this one, unless it wants another; returns how many those
    /// were. (There is no scheduler: this is all it would do.)
    pub fn schedule(&self, node: &str) -> Result<usize> {
        // A DaemonSet names the node each of its pods is for.
        let columns = concat!(
            "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name} ",
            "{.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution",
            ".nodeSelectorTerms[0].matchFields[0].values[0]}{\"\\n\"}{end}"
        );
        let waiting = [
            "get",
            "pods",
            "-A",
            "--field-selector=spec.nodeName=",
            "-o",
            columns,
        ];
        let waiting = self.kubectl(&waiting)?;
        let mut bound = 0;
        for line in waiting.lines() {
            let mut words = line.split(' ');
            let (Some(namespace), Some(name)) = (words.next(), words.next()) else {
                continue;
            };
            if words
                .next()
                .is_some_and(|wanted| !wanted.is_empty() && wanted != node)
            {
                continue;
            }
            let binding = json!({
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": name},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            });
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
            let create = ["create", "--raw", &path, "-f", "-"];
            self.kubectl_with_input(&create, &binding.to_string())?;
            bound += 1;
        }
        Ok(bound)
    }

    fn start_controllers(&mut self) -> Result<()> {
        let folder = self.folder.path();
        let mut controllers = Server::start(
            self.netns,
            "kube-controller-manager",
            &program::find("kube-controller-manager")?,
            folder,
            |controllers| {
                controllers
                    .args(["--kubeconfig", "kubeconfig", "--leader-elect=false"])
                    .args(["--use-service-account-credentials=true"])
                    .args(["--service-account-private-key-file", "accounts.key"])
                    // The API server signed its certificate itself: the file has its authority too.
                    .args(["--root-ca-file", "certs/apiserver.crt"])
                    .args(["--cert-dir", "controllers", "--port", "0"]);
            },
        )?;
        let ready = || {
            let account = [
                "get",
                "serviceaccount",
                "default",
                "-o",
                "jsonpath={.secrets}",
            ];
            Ok(self
                .kubectl(&account)
                .is_ok_and(|text| text.contains("name")))
        };
        controllers
            .wait(PATIENCE, ready)
            .context("namespaces get no service accounts")?;
        self.controllers = Some(controllers);
        Ok(())
    }
}
