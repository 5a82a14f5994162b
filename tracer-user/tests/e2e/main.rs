//! The product as it is installed: the image in containerd, the manifests in a real API server, the agent in
//! a pod, and the incident upon pods that a real kubelet probes.
//!
//! `cargo xtask e2e` builds what this needs and runs it.
#![expect(
    clippy::print_stdout,
    reason = "a test's own output: how long each step took"
)]

mod agent;
mod churn;
mod cluster;
mod enforcement;
mod incident;
mod kustomize;
mod outage;
mod prometheus;
mod rights;
mod scale;

use std::time::Instant;

use anyhow::Result;
use lab::enforcer::{Attach, Backend, KubeRouter, Tc};

use cluster::Cluster;
use enforcement::Enforcement;

/// One cluster for everything: making it takes longer than most of what is done with it.
#[test]
#[ignore = "needs a Kubernetes: `cargo xtask e2e`"]
fn the_incident_befalls_a_cluster_and_the_agent_tells() -> Result<()> {
    let mut steps = Steps(Instant::now());
    let lab = lab::Lab::without_servers(lab::Wiring::Bridge)?;
    let mut cluster = Cluster::start(&lab)?;
    steps.done("a cluster");
    cluster.apply(include_str!("../../../deploy/tracer.yaml"))?;
    cluster.wait_agent()?;
    rights::are_those_of_a_reader(&cluster)?;
    steps.done("the agent, installed");
    rights::are_all_needed(&cluster)?;
    steps.done("its rights, taken away and given back");
    incident::bring_pods(&cluster)?;
    steps.done("pods");
    let mut enforcement = Enforcement::default();

    let stock = KubeRouter::new(Backend::IptablesNft);
    enforcement.by(&cluster, Box::new(stock))?;
    incident::rejects_calls_only(&cluster, &mut enforcement)?;
    steps.done("kube-router as it is");

    let strict = KubeRouter::new(Backend::IptablesNft).policing_the_node();
    enforcement.by(&cluster, Box::new(strict))?;
    let drops = incident::strikes(&cluster, &mut enforcement)?;
    steps.done("kube-router's shape: the incident");
    outage::of_the_api_server(&mut cluster, &enforcement)?;
    steps.done("kube-router's shape: the API server killed and restarted");
    incident::is_cured(&cluster, &mut enforcement, &drops)?;
    steps.done("kube-router's shape: cured");

    incident::forget_events(&cluster)?;
    enforcement.by(&cluster, Box::new(Tc::new(Attach::Tcx)))?;
    let drops = incident::strikes(&cluster, &mut enforcement)?;
    steps.done("tc: the incident");
    churn::blames_nobody_wrongly(&cluster, &enforcement)?;
    steps.done("tc: pods come and go");
    outage::of_the_agent(&cluster, &enforcement)?;
    steps.done("tc: the agent killed and restarted");
    incident::is_cured(&cluster, &mut enforcement, &drops)?;
    steps.done("tc: cured");
    scale::stays_small(&cluster)?;
    steps.done("ten thousand pods");
    Ok(())
}

/// Says what was done and how long it took: this is minutes of silence otherwise.
struct Steps(Instant);

impl Steps {
    fn done(&mut self, what: &str) {
        println!("{:5.1} s  {what}", self.0.elapsed().as_secs_f32());
        self.0 = Instant::now();
    }
}
