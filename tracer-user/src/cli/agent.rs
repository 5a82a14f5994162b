//! `tracer agent`: the node daemon.

use std::io::{ErrorKind, IsTerminal as _};
use std::iter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{BPFFS, CaptureArgs, Common, Error, cluster, settings};
use crate::filter::Filter;
use crate::http::{self, Health};
use crate::kernel::{self, Capture, Clock, DeviceNames, Pin, Rulesets, TcPrograms};
use crate::pipeline::{self, Inbox, Ledger, Losses, Outlet, Past, Sizes, Stages};
use crate::sink::Sink;
use crate::sink::events::{Events, events};
use crate::sink::metrics::{Count, Metrics};
use crate::stream::{self, Access, DEFAULT_SOCKET, History, Says, Server, Waiting, access};

/// Where every CNI pins, too.
const DEFAULT_PIN: &str = "/sys/fs/bpf/tracer";

/// Survives a reboot, after which the API server may come up later than this node.
const DEFAULT_STATE_DIR: &str = "/var/lib/tracer";

/// `tracer agent`
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option by itself")]
pub(super) struct AgentArgs {
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0:9470",
        env = "TRACER_METRICS_ADDR"
    )]
    metrics_addr: SocketAddr,
    /// This node's name; $NODE_NAME, else the host name, by default.
    #[arg(long, value_name = "NAME", env = "TRACER_NODE")]
    node: Option<String>,
    #[command(flatten)]
    capture: CaptureArgs,
    /// Where `tracer watch` reads the stream.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, env = "TRACER_SOCKET")]
    socket: PathBuf,
    /// Whose the socket is, by name or number; the agent's own user by default. Others may not read it. To give
    /// it to another takes CAP_CHOWN, which the DaemonSet does not grant: without it, it stays the agent's.
    #[arg(long, value_name = "USER", env = "TRACER_SOCKET_OWNER", value_parser = access::user)]
    socket_owner: Option<u32>,
    /// A group that may read it too, by name or number. Takes CAP_CHOWN where it is none of the agent's own.
    #[arg(long, value_name = "GROUP", env = "TRACER_SOCKET_GROUP", value_parser = access::group)]
    socket_group: Option<u32>,
    /// Have the kernel measure what tracer's programs cost (tracer_kernel_ns_total). It measures all BPF
    /// programs of the node then, which costs each of their runs two clock reads. That takes CAP_SYS_ADMIN,
    /// which the DaemonSet does not grant; without it, set the node's sysctl kernel.bpf_stats_enabled=1.
    #[arg(long, env = "TRACER_MEASURE_COST")]
    measure_cost: bool,
    /// Where programs and counts stay in the kernel when the agent ends, so that the next one goes on
    /// where this one ended: a folder on a bpffs, or `none`.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PIN, env = "TRACER_PIN")]
    pin: PathBuf,
    /// Take out of the kernel what agents left there, and end.
    #[arg(long, env = "TRACER_UNPIN")]
    unpin: bool,
    /// Wait until the agent that runs here has nothing left to tell (drops that wait for their pod, Kubernetes
    /// Events), five seconds at most, and end: what the DaemonSet does before it stops one. Changes nothing.
    #[arg(long, env = "TRACER_DRAIN", conflicts_with = "unpin")]
    drain: bool,
    /// Write no Kubernetes Events. They are written where the cluster is a live one.
    #[arg(long, env = "TRACER_NO_EVENTS")]
    no_events: bool,
    /// Where the cluster's state is kept on disk, for a start while the API server is out of reach: a folder
    /// of its own, or `none`.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR, env = "TRACER_STATE_DIR")]
    state_dir: PathBuf,
    /// Series a metric may have before further ones fold into `other`.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000,
        env = "TRACER_MAX_SERIES"
    )]
    max_series: usize,
}

impl AgentArgs {
    /// Where what stays in the kernel is pinned. The same agent is who is called and reached the same.
    fn pin(&self, node: &str) -> Option<Pin> {
        self.pin_root().map(|root| Pin {
            root: root.to_owned(),
            agent: format!("{node} {} {}", self.metrics_addr, self.socket.display()),
        })
    }

    /// Where others pin, too.
    fn bpffs(&self) -> &Path {
        self.pin_root()
            .and_then(Path::parent)
            .unwrap_or(Path::new(BPFFS))
    }

    /// What was told is kept beside the socket: both are gone after a reboot, as the pins are.
    fn ledger(&self) -> PathBuf {
        let mut name = self.socket.clone().into_os_string();
        name.push(".ledger");
        name.into()
    }

    fn pin_root(&self) -> Option<&Path> {
        (self.pin.as_os_str() != "none").then_some(&*self.pin)
    }

    fn state_dir(&self) -> Option<&Path> {
        (self.state_dir.as_os_str() != "none").then_some(&*self.state_dir)
    }

    /// `--drain`
    fn drain(&self) -> Result<ExitCode, Error> {
        let rest = stream::drain(&self.socket)?;
        anstream::println!(
            "{}",
            match rest.waiting {
                0 => "everything is told".to_owned(),
                waiting => format!("{waiting} drops and Events wait all the same"),
            }
        );
        Ok(ExitCode::SUCCESS)
    }

    /// `--unpin`
    fn unpin(&self) -> Result<ExitCode, Error> {
        let Some(root) = self.pin_root() else {
            return Err(Error::Usage(
                "--unpin: with --pin none nothing is pinned; give the folder that agents were started with"
                    .into(),
            ));
        };
        let unpinned = kernel::unpin(root).map_err(|error| {
            Error::Environment(format!(
                "cannot remove what is pinned at {}: {error}",
                self.pin.display()
            ))
        })?;
        let ledger = self.ledger();
        if let Err(error) = std::fs::remove_file(&ledger)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(Error::Environment(format!(
                "cannot remove {}: {error}",
                ledger.display()
            )));
        }
        anstream::println!(
            "{}: {}{}",
            self.pin.display(),
            match unpinned.agents {
                0 => "nothing of tracer's is pinned there".to_owned(),
                1 => "taken out what one agent left".to_owned(),
                more => format!("taken out what {more} agents left"),
            },
            match unpinned.at_work {
                0 => String::new(),
                1 => "; one is at work, and goes on until it ends".to_owned(),
                more => format!("; {more} are at work, and go on until they end"),
            }
        );
        Ok(ExitCode::SUCCESS)
    }
}

pub(super) fn run(args: &AgentArgs, common: &Common) -> Result<ExitCode, Error> {
    if args.unpin {
        return args.unpin();
    }
    if args.drain {
        return args.drain();
    }
    init_logging();
    let node = args.node.clone().unwrap_or_else(settings::node_name);
    let pin = args.pin(&node);
    let ledger = args.ledger();
    let state = cluster::for_capture(common, &node)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        pipeline::stop_on_signals(&stop, None)?;
        let metrics = Arc::new(
            Metrics::new(args.max_series).map_err(|error| Error::Internal(error.to_string()))?,
        );
        // The port first: a second agent on the node should fail before it attaches anything.
        let listener = http::listen(args.metrics_addr).map_err(|error| {
            Error::Environment(format!(
                "cannot listen on {}: {error}; choose another with --metrics-addr",
                args.metrics_addr
            ))
        })?;
        let access = Access {
            owner: args.socket_owner,
            group: args.socket_group,
        };
        let socket = Server::bind(&args.socket, access, &node, History::default())?;
        let past = pin.as_ref().and_then(|_| Past::read(&ledger));
        let options = kernel::Options {
            measure_cost: args.measure_cost,
            pin,
            marks: past.as_ref().map(|past| past.marks.clone()),
            ..args.capture.options(common)
        };
        let mut capture = Capture::start(&options)?;
        let inbox = Inbox::default();
        let client = if args.no_events {
            None
        } else {
            state.client().await
        };
        let attribution = state
            .start(&node, inbox.waker(), args.state_dir(), &stop)
            .await?;
        tracing::info!(
            node,
            hook = capture.hooks().kfree_skb.as_str(),
            cluster = %attribution.state,
            "watching drops"
        );
        for missing in &capture.hooks().missing {
            tracing::warn!("{missing}");
        }
        // Everything is attached and every credential read.
        match kernel::give_up() {
            Ok(kept) => tracing::info!(kept = kept.join(","), "capabilities given up"),
            Err(error) => tracing::warn!("capabilities cannot be given up: {error}"),
        }
        let losses = Arc::new(Losses::default());
        if capture.goes_on() {
            if let Some(past) = &past {
                past.restore(&metrics, &losses);
            }
            tracing::info!("going on with what was counted before");
        }
        let ledger = capture
            .settled()
            .map(|settled| Ledger::new(ledger, Arc::clone(&metrics), Arc::clone(&losses), settled));
        let state = attribution.state.clone();
        let says: Says = Arc::new(move || state.not_current());
        let sizes = Arc::<Sizes>::default();
        let events = client.map(|client| {
            let (sink, writer) = events(&node, metrics.events());
            tokio::spawn(writer.run(client, stop.clone()));
            sink
        });
        let events_waiting = events.as_ref().map(Events::waiting);
        // A drop that waited may become an Event.
        let waiting: Waiting = iter::once(sizes.waiting())
            .chain(events_waiting.clone())
            .collect();
        let health = Arc::new(Health {
            metrics: Arc::clone(&metrics),
            kernel: capture.meter(),
            losses: Arc::clone(&losses),
            sizes: Arc::clone(&sizes),
            stream: socket.publisher(),
            events: events_waiting,
            state: attribution.state,
            caught_up: ledger.as_ref().map(Ledger::caught_up),
        });
        tracing::info!(address = %listener.local_addr()?, "serving /metrics, /healthz and /readyz");
        let server = tokio::spawn(http::serve(listener, Arc::clone(&health), stop.clone()));
        let stages = Stages {
            decoder: capture.decoder(),
            clock: Clock::new(),
            tc: TcPrograms::new(args.bpffs()),
            devices: DeviceNames::new(),
            rulesets: Rulesets::new(),
            attributor: attribution.attributor,
            following: attribution.following,
            ledger,
            sizes,
        };
        let mut sinks: Vec<Box<dyn Sink>> =
            vec![Box::new(Count::new(metrics)), Box::new(socket.publisher())];
        sinks.extend(events.map(|sink| Box::new(sink) as Box<dyn Sink>));
        let outlet = Outlet::new(Filter::default(), sinks, None);
        let stream = tokio::spawn(socket.serve(says, waiting, stop.clone()));
        let result = pipeline::run(&mut capture, inbox, stages, outlet, losses, stop.clone()).await;
        stop.cancel();
        match server.await {
            Ok(served) => served?,
            Err(error) => return Err(Error::Internal(error.to_string())),
        }
        if let Err(error) = stream.await {
            return Err(Error::Internal(error.to_string()));
        }
        let outcome = result?;
        if capture.settled().is_some() {
            tracing::info!(
                "the programs stay in the kernel and count on for the next agent; `tracer agent --unpin` takes them out"
            );
        }
        tracing::info!(packets = outcome.packets, "stopped");
        Ok(ExitCode::SUCCESS)
    })
}

/// The client's own words for an API server out of reach are many; we say it once.
const LOG: &str = "info,kube_client=off,kube_runtime=off";

/// Text on a terminal, JSON otherwise; `RUST_LOG` decides how much, `info` by default.
fn init_logging() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        log.with_target(false).init();
    } else {
        log.json().flatten_event(true).init();
    }
}
