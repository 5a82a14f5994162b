//! The story, chapter by chapter; each thing it tells is checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use lab::enforcer::{Attach, Backend, Enforcer, KubeRouter, Tc};
use lab::{BROKEN_POLICY, Lab, Policies, Wiring};
use serde_json::Value;

use crate::observe::Watch;
use crate::stage::{self, Expect};
use crate::{Arguments, Shape, tell};

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let files = Files::prepare(&arguments.out)?;
    let told = tell_all(arguments, &files);
    files.give_back()?;
    told
}

fn tell_all(arguments: &Arguments, files: &Files) -> Result<()> {
    let tracer = arguments.tracer.as_path();
    let shape = arguments.enforcer;

    tell::chapter(1, "A cluster, and Vault works");
    let lab = Lab::new(Wiring::Bridge)?;
    tell::say(
        "master 192.168.1.100 (API server on 6443), node-1 10.10.0.11 with the pods vault-0, vault-1\n\
         and coredns on 10.42.1.0/24, Service 10.43.0.1:443 → 192.168.1.100:6443. All of it lives in\n\
         network namespaces of its own and is gone when this ends.",
    );
    stage::probe(&lab, Expect::Works)?;
    stage::api(&lab, Expect::Works)?;
    stage::peer(&lab, Expect::Works)?;

    tell::chapter(2, "A NetworkPolicy goes in, and it looks right");
    tell::say("Vault's pods may talk to each other, and to nobody else:");
    tell::shown(BROKEN_POLICY);
    files.write_cluster(&lab)?;
    let mut enforcer: Box<dyn Enforcer> = match shape {
        Shape::Tc => Box::new(Tc::new(Attach::Tcx)),
        Shape::Iptables => Box::new(KubeRouter::new(Backend::IptablesNft)),
    };
    // A connection that stands when the policy strikes, as there always is one.
    let open = lab
        .https()
        .dial(lab.pod("vault-0").netns(), &stage::api_request())?;
    let open = open.map_err(|failed| anyhow::anyhow!("before any policy: {failed:?}"))?;
    let broken = Policies::parse(BROKEN_POLICY)?;
    tell::say(match shape {
        Shape::Tc => {
            "Enforced at tc in front of each pod, as in the incident: an eBPF program drops, silently."
        }
        Shape::Iptables => {
            "Enforced by netfilter rules as K3s's kube-router installs them: they REJECT."
        }
    });
    tell::command("tracer watch --cluster cluster.yaml --record drops.jsonl   # on node-1");
    let watch = Watch::start(&lab, tracer, &files.cluster, &files.drops)?;
    enforcer.install(&lab, &broken)?;

    tell::chapter(
        3,
        "What people see: timeouts, TLS errors, and a policy that lets the peers talk",
    );
    stage::peer(&lab, Expect::Works)?;
    let classes = break_things(&lab, shape, open)?;
    tell::say("Nothing here says \"policy\". In the incident, days went into certificates.");

    tell::chapter(4, "What tracer sees");
    watch.show_until(classes)?;
    for class in classes {
        name_the_policy(&watch.drops()?, class)?;
        tell::checked(&format!(
            "{class} drops are seen, and vault/vault-policy is named"
        ));
    }

    tell::chapter(5, "Why, and what lets it through");
    explain(tracer, files, "vault/vault-0", "192.168.1.100", 6443)?;
    tell::command("tracer suggest --cluster cluster.yaml --input drops.jsonl");
    let suggested = suggest(tracer, files)?;
    tell::shown(&suggested);
    let cure = Policies::parse(&suggested).context("the suggested policy is not valid")?;

    tell::chapter(6, "The suggestion goes in, and nothing more is dropped");
    enforcer.install(&lab, &broken.and(cure))?;
    let before = enforcer.dropped(&lab)?;
    stage::probe(&lab, Expect::Works)?;
    if shape == Shape::Iptables {
        stage::from_other_node(&lab, Expect::Works)?;
    }
    stage::api(&lab, Expect::Works)?;
    stage::peer(&lab, Expect::Works)?;
    let after = enforcer.dropped(&lab)?;
    ensure!(
        before == after,
        "{} more packets were dropped with the suggestion in force",
        after - before
    );
    tell::checked("the same traffic passes, and the enforcer dropped nothing more");
    let drops = watch.stop()?;
    let seen: u64 = drops.iter().filter_map(|drop| drop["count"].as_u64()).sum();
    ensure!(
        seen == after,
        "tracer counted {seen} drops, the enforcer's own counter says {after}"
    );
    tell::checked(&format!(
        "tracer counted {seen} drops, and so did the enforcer: exactly as many"
    ));
    enforcer.remove(&lab)?;
    tell::command("tracer report --cluster cluster.yaml --input drops.jsonl -o report.html");
    report(tracer, files)?;

    differences(shape);
    tell::say(&format!(
        "\nThe recorded drops: {}\nThe incident as a page, for a browser: {}",
        files.drops.display(),
        files.report.display()
    ));
    Ok(())
}

/// Makes the traffic that the policy breaks; returns the classes of drops it must lead to.
fn break_things(
    lab: &Lab,
    shape: Shape,
    open: lab::traffic::Dialed,
) -> Result<&'static [&'static str]> {
    match shape {
        Shape::Tc => {
            stage::probe(lab, Expect::Fails)?;
            stage::api(lab, Expect::Fails)?;
            stage::outcome(
                "vault-0 → API server, already connected",
                &open.get(),
                Expect::Fails,
            )?;
            Ok(&["kubelet-probe", "apiserver-egress"])
        }
        Shape::Iptables => {
            stage::probe(lab, Expect::Works)?;
            tell::say("(kube-router lets a node reach its own pods: this probe is not dropped.)");
            stage::from_other_node(lab, Expect::Fails)?;
            stage::api(lab, Expect::Fails)?;
            stage::outcome(
                "vault-0 → API server, already connected",
                &open.get(),
                Expect::Works,
            )?;
            Ok(&["node-to-pod", "apiserver-egress"])
        }
    }
}

/// Each drop of the class must be denied by the policy, by name.
fn name_the_policy(drops: &[Value], class: &str) -> Result<()> {
    for drop in drops.iter().filter(|drop| drop["class"] == class) {
        let policy = &drop["policy"];
        let named = policy["isolating"][0]["name"] == "vault-policy"
            && policy["isolating"][0]["namespace"] == "vault";
        ensure!(
            policy["verdict"] == "denied" && named,
            "a {class} drop does not name vault/vault-policy as denying it: {drop}"
        );
    }
    Ok(())
}

fn explain(tracer: &Path, files: &Files, from: &str, to: &str, port: u16) -> Result<()> {
    tell::command(&format!(
        "tracer explain --cluster cluster.yaml --from {from} --to {to} --port {port}"
    ));
    let output = Command::new(tracer)
        .args([
            "explain",
            "--from",
            from,
            "--to",
            to,
            "--port",
            &port.to_string(),
            "--cluster",
        ])
        .arg(&files.cluster)
        .output()?;
    ensure!(
        output.status.code() == Some(1),
        "tracer explain should say denied (exit code 1): {}",
        String::from_utf8_lossy(&output.stderr)
    );
    tell::shown(&String::from_utf8_lossy(&output.stdout));
    Ok(())
}

fn suggest(tracer: &Path, files: &Files) -> Result<String> {
    let output = Command::new(tracer)
        .arg("suggest")
        .arg("--cluster")
        .arg(&files.cluster)
        .arg("--input")
        .arg(&files.drops)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || output.stdout.is_empty() {
        bail!("tracer suggest gave no policy: {said}");
    }
    fs::write(&files.suggested, &output.stdout)?;
    String::from_utf8(output.stdout).context("the suggestion is not UTF-8")
}

fn report(tracer: &Path, files: &Files) -> Result<()> {
    let output = Command::new(tracer)
        .arg("report")
        .arg("--cluster")
        .arg(&files.cluster)
        .arg("--input")
        .arg(&files.drops)
        .arg("--output")
        .arg(&files.report)
        .output()?;
    ensure!(
        output.status.success() && files.report.exists(),
        "tracer report wrote no page: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Where the story is not what stock K3s does.
fn differences(shape: Shape) {
    tell::chapter(7, "Where this differs from your cluster");
    tell::say(match shape {
        Shape::Tc => {
            "Stock K3s enforces policies with kube-router, which always lets a node reach its own pods:\n\
             there the probe would pass and only the API server be cut off. The incident's cluster ran\n\
             Calico in eBPF mode; this allow-list at tc has its shape and drops node → pod as well.\n\
             `cargo xtask demo --enforcer iptables` shows K3s's own way."
        }
        Shape::Iptables => {
            "This is stock K3s's way: the pod's own node always gets through, so its probe was not\n\
             dropped; the same request from another node was, and pod → API server. The rules REJECT, so\n\
             clients see `connection refused` at once, not a timeout. Connections that stood when the\n\
             policy came in go on. The incident's cluster dropped silently: `--enforcer tc`."
        }
    });
}

/// What the demo leaves behind.
struct Files {
    folder: PathBuf,
    cluster: PathBuf,
    drops: PathBuf,
    suggested: PathBuf,
    report: PathBuf,
}

impl Files {
    fn prepare(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let files = Self {
            folder: folder.to_owned(),
            cluster: folder.join("cluster.yaml"),
            drops: folder.join("drops.jsonl"),
            suggested: folder.join("suggested.yaml"),
            report: folder.join("report.html"),
        };
        for old in files.all() {
            match fs::remove_file(old) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", old.display()));
                }
                _ => {}
            }
        }
        Ok(files)
    }

    fn all(&self) -> [&PathBuf; 4] {
        [&self.cluster, &self.drops, &self.suggested, &self.report]
    }

    fn write_cluster(&self, lab: &Lab) -> Result<()> {
        fs::write(
            &self.cluster,
            format!("{}---\n{BROKEN_POLICY}", lab.manifests()),
        )
        .with_context(|| format!("cannot write {}", self.cluster.display()))
    }

    /// Under sudo the files belong to whoever called it.
    fn give_back(&self) -> Result<()> {
        let id = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) else {
            return Ok(());
        };
        let left = [&self.folder].into_iter().chain(self.all());
        for path in left.filter(|path| path.exists()) {
            std::os::unix::fs::chown(path, Some(user), Some(group))
                .with_context(|| format!("cannot give {} back", path.display()))?;
        }
        Ok(())
    }
}
