//! What others count and hold, read when it is scraped.

use jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// What the kernel side and the pipeline have counted themselves; read at scrape time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Drops that the kernel side saw and could not hand over: the ring was full, mostly.
    pub kernel: u64,
    /// Records that could not be decoded.
    pub decode: u64,
    /// Packets that found no room in the table of flows, hence are counted without details.
    pub roomless: u64,
    /// Nanoseconds that tracer's programs ran in the kernel, and how often, as far as it was measured.
    pub cost: (u64, u64),
}

/// What others hold; read at scrape time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Flows in the kernel's table, and how many have room.
    pub flows: (usize, u32),
    /// Objects of the cluster, by kind.
    pub objects: Vec<(&'static str, usize)>,
    /// Drops that wait for their pod to be known.
    pub waiting: usize,
    /// Kubernetes Events that are neither written nor given up.
    pub events: usize,
    /// Who reads the stream.
    pub readers: usize,
    /// Drops that the stream's history keeps, and their bytes.
    pub history: (usize, usize),
}

/// Metrics of what others count and hold.
#[derive(Debug)]
pub(super) struct ReadAtScrape {
    lost: IntCounterVec,
    evictions: IntCounter,
    kernel_ns: IntCounter,
    kernel_runs: IntCounter,
    synced: IntGauge,
    followed_until: IntGauge,
    flows: IntGauge,
    capacity: IntGauge,
    objects: IntGaugeVec,
    waiting: IntGauge,
    events: IntGauge,
    readers: IntGauge,
    history: IntGauge,
    history_bytes: IntGauge,
    series: IntGaugeVec,
}

impl ReadAtScrape {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let read = Self {
            lost: IntCounterVec::new(
                Opts::new(
                    "tracer_events_lost_total",
                    "Drops that were lost on the way, by stage.",
                ),
                &["stage"],
            )?,
            evictions: IntCounter::new(
                "tracer_flow_table_evictions_total",
                "Packets whose flow found no room in the kernel's table: counted in tracer_drops_total by their reason alone.",
            )?,
            kernel_ns: IntCounter::new(
                "tracer_kernel_ns_total",
                "Nanoseconds that tracer's programs ran in the kernel, while it measures (--measure-cost).",
            )?,
            kernel_runs: IntCounter::new(
                "tracer_kernel_runs_total",
                "How often tracer's programs ran in the kernel, while it measures (--measure-cost).",
            )?,
            synced: IntGauge::new(
                "tracer_cluster_synced",
                "1 where cluster state is complete, 0 where it is missing or stale.",
            )?,
            followed_until: IntGauge::new(
                "tracer_cluster_state_timestamp_seconds",
                "Unix time until which the cluster was followed; that of the snapshot where the agent works from one; 0: never.",
            )?,
            flows: IntGauge::new("tracer_flow_table_entries", "Flows in the kernel's table.")?,
            capacity: IntGauge::new(
                "tracer_flow_table_capacity",
                "Flows that the kernel's table has room for (--flows).",
            )?,
            objects: IntGaugeVec::new(
                Opts::new(
                    "tracer_cluster_objects",
                    "Objects of the cluster that the agent knows, by kind.",
                ),
                &["kind"],
            )?,
            waiting: IntGauge::new(
                "tracer_drops_waiting",
                "Drops that wait for their pod to be known, three seconds at most.",
            )?,
            events: IntGauge::new(
                "tracer_kubernetes_events_waiting",
                "Kubernetes Events that are neither written nor given up.",
            )?,
            readers: IntGauge::new(
                "tracer_stream_readers",
                "Readers that follow the stream (tracer watch).",
            )?,
            history: IntGauge::new(
                "tracer_stream_history_drops",
                "Drops that the stream's history keeps.",
            )?,
            history_bytes: IntGauge::new(
                "tracer_stream_history_bytes",
                "Bytes of the drops that the stream's history keeps.",
            )?,
            series: IntGaugeVec::new(
                Opts::new(
                    "tracer_metric_series",
                    "Series of a metric; from --max-series on, new ones fold into `other`.",
                ),
                &["metric"],
            )?,
        };
        for stage in ["kernel", "decode"] {
            read.lost.with_label_values(&[stage]);
        }
        let own: [Box<dyn Collector>; 15] = [
            Box::new(read.lost.clone()),
            Box::new(read.evictions.clone()),
            Box::new(read.kernel_ns.clone()),
            Box::new(read.kernel_runs.clone()),
            Box::new(read.synced.clone()),
            Box::new(read.followed_until.clone()),
            Box::new(read.flows.clone()),
            Box::new(read.capacity.clone()),
            Box::new(read.objects.clone()),
            Box::new(read.waiting.clone()),
            Box::new(read.events.clone()),
            Box::new(read.readers.clone()),
            Box::new(read.history.clone()),
            Box::new(read.history_bytes.clone()),
            Box::new(read.series.clone()),
        ];
        for one in own {
            registry.register(one)?;
        }
        Ok(read)
    }

    pub(super) fn set_state(&self, synced: bool, followed_until: Option<Timestamp>) {
        self.synced.set(i64::from(synced));
        let until = followed_until.map_or(0, Timestamp::as_second);
        self.followed_until.set(until);
    }

    pub(super) fn set_losses(&self, losses: Losses) {
        for (stage, total) in [("kernel", losses.kernel), ("decode", losses.decode)] {
            raise_to(&self.lost.with_label_values(&[stage]), total);
        }
        raise_to(&self.evictions, losses.roomless);
        raise_to(&self.kernel_ns, losses.cost.0);
        raise_to(&self.kernel_runs, losses.cost.1);
    }

    pub(super) fn set_sizes(&self, sizes: &Sizes) {
        set(&self.flows, sizes.flows.0);
        self.capacity.set(sizes.flows.1.into());
        for (kind, number) in &sizes.objects {
            set(&self.objects.with_label_values(&[kind]), *number);
        }
        set(&self.waiting, sizes.waiting);
        set(&self.events, sizes.events);
        set(&self.readers, sizes.readers);
        set(&self.history, sizes.history.0);
        set(&self.history_bytes, sizes.history.1);
    }

    pub(super) fn set_series<const N: usize>(&self, series: [(&str, usize); N]) {
        for (metric, number) in series {
            set(&self.series.with_label_values(&[metric]), number);
        }
    }
}

fn set(gauge: &IntGauge, number: usize) {
    gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
}

/// Counters that others own are raised to what they say, never set back.
fn raise_to(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}
