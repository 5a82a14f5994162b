//! A real Prometheus with the alerts of `deploy/`.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};
use lab::Netns;
use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::{PATIENCE, until};

const PORT: u16 = 19090;
const RULES: &str = include_str!("../../../deploy/prometheus/rules.yaml");
/// The agent by the node's address, under the job's name that the alerts ask for.
const CONFIGURATION: &str = "\
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yaml]
scrape_configs:
- job_name: tracer
  static_configs: [{targets: ['10.10.0.11:9470']}]
";

pub(crate) struct Prometheus<'a> {
    child: Child,
    netns: &'a Netns,
    _folder: TempDir,
}

impl<'a> Prometheus<'a> {
    /// With the alerts' patience (`for`) shortened to a second.
    pub(crate) fn start(netns: &'a Netns) -> Result<Self> {
        let programs = std::env::var_os(lab::kube::PROGRAMS).unwrap_or_default();
        let program: PathBuf = std::env::split_paths(&programs)
            .map(|folder| folder.join("prometheus"))
            .find(|program| program.is_file())
            .context("there is no prometheus; run `cargo xtask e2e`")?;
        let folder = tempfile::tempdir()?;
        let rules: String = RULES
            .lines()
            .map(|line| match line.split_once("for: ") {
                Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 1s\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        std::fs::write(folder.path().join("rules.yaml"), rules)?;
        std::fs::write(folder.path().join("prometheus.yaml"), CONFIGURATION)?;
        let child = netns.spawn(program, |prometheus| {
            prometheus
                .args(["--config.file", "prometheus.yaml"])
                .args(["--storage.tsdb.path", "data"])
                .arg(format!("--web.listen-address=127.0.0.1:{PORT}"))
                .current_dir(folder.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
        })?;
        Ok(Self {
            child,
            netns,
            _folder: folder,
        })
    }

    /// Waits until it has scraped the agent.
    pub(crate) fn wait_scraped(&self) -> Result<()> {
        until("Prometheus has scraped the agent", || {
            // It may not listen yet.
            Ok(self.value("up").is_ok_and(|up| up == Some(1.0)))
        })
    }

    /// The first series that a query finds.
    pub(crate) fn value(&self, query: &str) -> Result<Option<f64>> {
        let escaped: String = query
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect();
        let answer = self.get(&format!("/api/v1/query?query={escaped}"))?;
        let value = &answer["data"]["result"][0]["value"][1];
        Ok(value.as_str().map(str::parse).transpose()?)
    }

    /// The names of the alerts that fire.
    pub(crate) fn firing(&self) -> Result<BTreeSet<String>> {
        let answer = self.get("/api/v1/alerts")?;
        let alerts = answer["data"]["alerts"].as_array();
        let alerts = alerts.with_context(|| format!("unexpected answer: {answer}"))?;
        Ok(alerts
            .iter()
            .filter(|alert| alert["state"] == "firing")
            .filter_map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned()))
            .collect())
    }

    fn get(&self, path: &str) -> Result<Value> {
        let connect = || TcpStream::connect(("127.0.0.1", PORT));
        let mut connection = self.netns.enter(connect)??;
        connection.set_read_timeout(Some(PATIENCE))?;
        // HTTP/1.0: the answer comes in one piece, not in chunks.
        write!(
            connection,
            "GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n"
        )?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        Ok(serde_json::from_str(body)?)
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
