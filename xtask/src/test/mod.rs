//! `cargo xtask test`: every check there is, each a step with its time and result.

mod cargo_test;
mod cross;
mod steps;
mod summary;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;

use crate::setup::{self, Part};
use crate::workspace::{Packages, Rustc, Workspace};
use summary::{Outcome, Summary};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run only these groups of steps
    #[arg(long, value_enum, value_delimiter = ',', value_name = "GROUP,...")]
    only: Vec<Group>,
}

impl Arguments {
    /// The test in a whole cluster, alone.
    pub(crate) fn e2e() -> Self {
        Self {
            only: vec![Group::E2e],
        }
    }
}

/// Steps that are asked for together.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Formatting
    Fmt,
    /// Lints, of user space and of the eBPF programs
    Clippy,
    /// Tests that need no privilege
    Unit,
    /// Tests on the live kernel; they need root
    Live,
    /// The product in a whole cluster; it needs root, and builds a Kubernetes the first time
    E2e,
    /// The live tests on other kernels, in QEMU; it needs root
    Vm,
    /// What is built for another architecture
    Cross,
    /// Documentation and the examples in it
    Doc,
    /// Manifests, alerts and dashboard
    Deploy,
    /// Licences, sources and advisories of the dependencies
    Deny,
}

/// What the steps work on.
struct Stage<'a> {
    workspace: &'a Workspace,
    packages: Packages,
    rustc: Rustc,
}

struct Step {
    group: Group,
    name: &'static str,
    needs: &'static [Part],
    run: fn(&Stage<'_>) -> Result<Outcome>,
}

const STEPS: [Step; 13] = [
    Step {
        group: Group::Fmt,
        name: "formatting",
        needs: &[Part::Toolchain],
        run: steps::fmt,
    },
    Step {
        group: Group::Clippy,
        name: "lints",
        needs: &[Part::Toolchain, Part::BpfLinker],
        run: steps::clippy,
    },
    Step {
        group: Group::Clippy,
        name: "lints, eBPF",
        needs: &[Part::Toolchain],
        run: steps::clippy_ebpf,
    },
    Step {
        group: Group::Unit,
        name: "unit tests",
        needs: &[Part::Toolchain, Part::BpfLinker],
        run: steps::unit,
    },
    Step {
        group: Group::Live,
        name: "live tests",
        needs: &[], // it asks for them itself, once it knows that it can have root
        run: steps::live,
    },
    Step {
        group: Group::E2e,
        name: "whole cluster",
        needs: &[], // as above
        run: steps::e2e,
    },
    Step {
        group: Group::Vm,
        name: "other kernels",
        needs: &[], // as above
        run: steps::vm,
    },
    Step {
        group: Group::Cross,
        name: "aarch64",
        needs: &[], // the build asks for them itself
        run: cross::run,
    },
    Step {
        group: Group::Doc,
        name: "examples",
        needs: &[Part::Toolchain, Part::BpfLinker],
        run: steps::examples,
    },
    Step {
        group: Group::Doc,
        name: "documentation",
        needs: &[Part::Toolchain, Part::BpfLinker],
        run: steps::documentation,
    },
    Step {
        group: Group::Deploy,
        name: "manifests and alerts",
        needs: &[Part::Toolchain, Part::BpfLinker, Part::Promtool],
        run: steps::deploy,
    },
    Step {
        group: Group::Deny,
        name: "licences",
        needs: &[Part::CargoDeny],
        run: steps::licences,
    },
    Step {
        group: Group::Deny,
        name: "advisories",
        needs: &[Part::CargoDeny],
        run: steps::advisories,
    },
];

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let chosen = |step: &&Step| arguments.only.is_empty() || arguments.only.contains(&step.group);
    let stage = Stage {
        workspace,
        packages: workspace.packages()?,
        rustc: Rustc::find(workspace)?,
    };

    let mut summary = Summary::default();
    for step in STEPS.iter().filter(chosen) {
        eprintln!("\n── {}", step.name);
        let start = Instant::now();
        let outcome = setup::ensure(workspace, step.needs)
            .and_then(|_| (step.run)(&stage))
            .unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        if let Outcome::Failed(why) = &outcome {
            eprintln!("FAILED: {why}");
        }
        summary.add(step.name, start.elapsed(), outcome);
    }
    print!("\n{summary}");
    Ok(if summary.failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
