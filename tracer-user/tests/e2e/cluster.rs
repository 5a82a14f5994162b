//! A cluster of one node with the agent's image, and its administrator.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use lab::kube::{ControlPlane, Node};
use lab::{Lab, plan};

pub(crate) const NODE: &str = "node-1";
/// How long a kubelet, a controller or the agent may take to notice something.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// How long images, containers and restarts may take.
const LONG: Duration = Duration::from_mins(5);
const INTERVAL: Duration = Duration::from_millis(200);

pub(crate) struct Cluster<'a> {
    pub(crate) node: Node<'a>,
    pub(crate) plane: ControlPlane<'a>,
    pub(crate) lab: &'a Lab,
}

/// Waits for what announces itself in no other way. What cannot be asked is not there yet.
pub(crate) fn until(what: &str, reached: impl FnMut() -> Result<bool>) -> Result<()> {
    until_within(PATIENCE, what, reached)
}

fn until_within(
    patience: Duration,
    what: &str,
    mut reached: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match reached() {
            Ok(true) => return Ok(()),
            Ok(false) | Err(_) if Instant::now() < deadline => thread::sleep(INTERVAL),
            Ok(false) => bail!("not within {} s: {what}", patience.as_secs()),
            Err(error) => {
                let patience = patience.as_secs();
                return Err(error.context(format!("not within {patience} s: {what}")));
            }
        }
    }
}

impl<'a> Cluster<'a> {
    pub(crate) fn start(lab: &'a Lab) -> Result<Self> {
        let image = std::env::var_os("TRACER_IMAGE")
            .map(PathBuf::from)
            .context("TRACER_IMAGE is not set; run `cargo xtask e2e`")?;
        let plane = ControlPlane::start(lab.master(), plan::MASTER.v4, plan::API_PORT)?;
        let node = Node::start(lab.node(), &plane, NODE, plan::NODE.v4, &[image])?;
        // As K3s's node controller does: the range of the node's pods.
        let range = r#"{"spec": {"podCIDR": "10.42.1.0/24", "podCIDRs": ["10.42.1.0/24"]}}"#;
        plane.kubectl(&["patch", "node", NODE, "-p", range])?;
        Ok(Self { node, plane, lab })
    }

    /// What talks to the API server by itself, as its administrator.
    pub(crate) fn asynchronously(
        &self,
        work: impl AsyncFnOnce(Client) -> Result<()> + Send,
    ) -> Result<()> {
        self.lab.master().enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let file = Kubeconfig::read_from(self.plane.kubeconfig())?;
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(file, &options).await?;
                work(Client::try_from(config)?).await
            })
        })?
    }

    /// Applies manifests and sends their pods to the node.
    pub(crate) fn apply(&self, manifests: &str) -> Result<()> {
        self.plane
            .kubectl_with_input(&["apply", "-f", "-"], manifests)?;
        self.plane.schedule(NODE)?;
        Ok(())
    }

    pub(crate) fn wait_ready(&self, namespace: &str, pod: &str, wanted: &str) -> Result<()> {
        let what = format!("{namespace}/{pod} has Ready={wanted}");
        until_within(LONG, &what, || Ok(self.ready(namespace, pod)? == wanted)).with_context(|| {
            let described = self.describe(namespace, pod).unwrap_or_default();
            let logged = self.logs(namespace, pod).unwrap_or_default();
            format!("{described}\n{logged}\n{}", self.node.last_words())
        })
    }

    /// `True`, `False`, or nothing yet.
    pub(crate) fn ready(&self, namespace: &str, pod: &str) -> Result<String> {
        let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        self.get(namespace, pod, ready)
    }

    pub(crate) fn address(&self, namespace: &str, pod: &str) -> Result<IpAddr> {
        let address = self.get(namespace, pod, "jsonpath={.status.podIP}")?;
        Ok(address.parse()?)
    }

    /// What a pod's object says, in the form `output`.
    pub(crate) fn get(&self, namespace: &str, pod: &str, output: &str) -> Result<String> {
        self.plane
            .kubectl(&["-n", namespace, "get", "pod", pod, "-o", output])
    }

    pub(crate) fn describe(&self, namespace: &str, pod: &str) -> Result<String> {
        self.plane
            .kubectl(&["-n", namespace, "describe", "pod", pod])
    }

    pub(crate) fn logs(&self, namespace: &str, pod: &str) -> Result<String> {
        self.plane
            .kubectl(&["-n", namespace, "logs", pod, "--tail=1000"])
    }

    /// Starts the `tracer` under test on the node, as its administrator would, with kubectl's own
    /// configuration.
    pub(crate) fn spawn_tracer(&self, arguments: &[&str]) -> Result<Child> {
        let tracer = Path::new(env!("CARGO_BIN_EXE_tracer"));
        self.node.spawn(tracer, |tracer| {
            tracer
                .args(arguments)
                .env("KUBECONFIG", self.plane.kubeconfig())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
        })
    }

    /// Runs it to its end, and returns what it printed.
    pub(crate) fn tracer(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut child = self.spawn_tracer(arguments)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        printed(child).with_context(|| format!("tracer {arguments:?}"))
    }
}

/// What a program printed until it ended well.
pub(crate) fn printed(child: Child) -> Result<String> {
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
