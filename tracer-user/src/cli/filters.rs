//! The filter options of `watch`, `report` and `suggest`, and `--not` before them.

use std::ffi::OsStr;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args};

use super::Error;
use crate::filter::{Condition, Filter, PodPattern, Side};
use crate::record::{Class, Direction};

/// Filters. Options of one kind widen, of different kinds narrow.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters (of one kind: any; of different kinds: all)")]
pub(super) struct FilterArgs {
    /// Exclude what the next filter matches.
    #[arg(long, action = ArgAction::Append, num_args = 0, default_missing_value = "true")]
    not: Vec<String>,
    /// Pod at either end: NAMESPACE/NAME, NAMESPACE/, NAME; a trailing * matches any ending.
    #[arg(long, value_name = "NS/NAME", value_delimiter = ',')]
    pod: Vec<String>,
    /// Sending pod.
    #[arg(long, value_name = "NS/NAME", value_delimiter = ',')]
    from_pod: Vec<String>,
    /// Receiving pod.
    #[arg(long, value_name = "NS/NAME", value_delimiter = ',')]
    to_pod: Vec<String>,
    /// Address or range at either end.
    #[arg(long, value_name = "IP|CIDR", value_delimiter = ',')]
    ip: Vec<String>,
    /// Port at either end.
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    port: Vec<String>,
    /// TCP, UDP, SCTP, ICMP, ICMPv6 or a number.
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',')]
    protocol: Vec<String>,
    /// Traffic class: kubelet-probe, apiserver-egress, dns, ...
    #[arg(long, value_name = "CLASS", value_delimiter = ',')]
    class: Vec<String>,
    /// Isolating policy.
    #[arg(long, value_name = "NS/NAME", value_delimiter = ',')]
    policy: Vec<String>,
    /// Node it happened on.
    #[arg(long = "node", value_name = "NODE", value_delimiter = ',')]
    on_node: Vec<String>,
    /// Drop reason, as the kernel names it.
    #[arg(long, value_name = "REASON", value_delimiter = ',')]
    reason: Vec<String>,
    /// Whose isolation it met: ingress or egress.
    #[arg(long, value_name = "DIRECTION", value_delimiter = ',')]
    direction: Vec<String>,
}

/// How an option's value becomes a condition.
type Parse = fn(&str, Option<&str>) -> Result<Condition, String>;

/// Each option's id, its name on the command line, and how its values are read.
const OPTIONS: [(&str, &str, Parse); 11] = [
    ("pod", "--pod", |value, ns| pod(Side::Either, value, ns)),
    ("from_pod", "--from-pod", |value, ns| {
        pod(Side::Source, value, ns)
    }),
    ("to_pod", "--to-pod", |value, ns| {
        pod(Side::Destination, value, ns)
    }),
    ("ip", "--ip", |value, _| {
        Condition::ip(value).map_err(|error| error.to_string())
    }),
    ("port", "--port", |value, _| {
        value
            .parse()
            .map(Condition::Port)
            .map_err(|_| "expected a port number from 0 to 65535".to_owned())
    }),
    ("protocol", "--protocol", |value, _| {
        Condition::protocol(value).map_err(|error| error.to_string())
    }),
    ("class", "--class", |value, _| {
        one_of::<Class>(
            value,
            Class::ALL.map(|class| (class.as_str(), class)).as_slice(),
        )
        .map(Condition::Class)
    }),
    ("policy", "--policy", |value, _| {
        Condition::policy(value).map_err(|error| error.to_string())
    }),
    ("on_node", "--node", |value, _| {
        Ok(Condition::Node(value.to_owned()))
    }),
    ("reason", "--reason", |value, _| {
        Ok(Condition::reason(value))
    }),
    ("direction", "--direction", |value, _| {
        one_of(
            value,
            &[
                ("ingress", Direction::Ingress),
                ("egress", Direction::Egress),
            ],
        )
        .map(Condition::Direction)
    }),
];

fn pod(side: Side, value: &str, namespace: Option<&str>) -> Result<Condition, String> {
    PodPattern::parse(value, namespace)
        .map(|pattern| Condition::Pod(side, pattern))
        .map_err(|error| error.to_string())
}

fn one_of<T: Copy>(value: &str, known: &[(&str, T)]) -> Result<T, String> {
    known
        .iter()
        .find(|(name, _)| *name == value)
        .map(|(_, known)| *known)
        .ok_or_else(|| {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            format!("expected one of {}", names.join(", "))
        })
}

/// The filter that the options make up, in the order they were given.
pub(super) fn resolve(matches: &ArgMatches, namespace: Option<&str>) -> Result<Filter, Error> {
    let mut filter = Filter::default();
    if let Some(namespace) = namespace {
        filter.push(Condition::Namespace(namespace.to_owned()), false);
    }
    let mut negations: Vec<usize> = indices(matches, "not");
    for (id, option, parse) in OPTIONS {
        // Not every command has every filter, and what nobody wrote filters nothing: some commands have a
        // default for an option of that name.
        if matches.try_contains_id(id).is_err()
            || matches.value_source(id) == Some(ValueSource::DefaultValue)
        {
            continue;
        }
        let mut indices = indices(matches, id).into_iter();
        // As written: of another command's the option may be parsed to a type of its own.
        let occurrences = matches.get_raw_occurrences(id).into_iter().flatten();
        for occurrence in occurrences {
            let mut first = None;
            let values: Vec<_> = occurrence.map(OsStr::to_string_lossy).collect();
            for _ in &values {
                let index = indices.next();
                first = first.or(index);
            }
            // An option's own index lies between `--not` and its first value.
            let negated = negations.iter().position(|not| first == Some(not + 2));
            if let Some(position) = negated {
                negations.swap_remove(position);
            }
            for value in values {
                let condition = parse(&value, namespace)
                    .map_err(|problem| Error::Usage(format!("{option} {value}: {problem}")))?;
                filter.push(condition, negated.is_some());
            }
        }
    }
    if negations.is_empty() {
        Ok(filter)
    } else {
        Err(Error::Usage(
            "--not must stand right before the filter it negates, as in --not --class dns".into(),
        ))
    }
}

fn indices(matches: &ArgMatches, id: &str) -> Vec<usize> {
    if matches.try_contains_id(id).is_err() {
        return Vec::new();
    }
    matches
        .indices_of(id)
        .map(Iterator::collect)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        _filters: FilterArgs,
    }

    fn parse(args: &[&str]) -> Result<Filter, Error> {
        let args = std::iter::once("tracer").chain(args.iter().copied());
        let _ = Cli::parse_from(args.clone());
        resolve(&Cli::command().get_matches_from(args), None)
    }

    fn probe() -> crate::record::Drop {
        serde_json::from_str(include_str!("../../tests/data/probe.json")).unwrap()
    }

    #[test]
    fn not_negates_the_next_filter_only() {
        let drop = probe();
        for (args, passes) in [
            (&["--class", "kubelet-probe"][..], true),
            (&["--not", "--class", "kubelet-probe"], false),
            (&["--class", "dns,kubelet-probe"], true),
            (&["--not", "--class=dns,kubelet-probe"], false),
            (&["--not", "--class", "dns", "--pod", "vault/vault-0"], true),
            (
                &["--class", "kubelet-probe", "--not", "--pod", "vault/"],
                false,
            ),
            (&["--not", "--port", "1", "--port", "8200"], true),
            (&["--node", "node-a", "--not", "--node", "node-b"], true),
        ] {
            assert_eq!(parse(args).unwrap().passes(&drop), passes, "{args:?}");
        }
    }

    #[test]
    fn what_does_not_fit_names_option_and_value() {
        for (args, message) in [
            (
                &["--class", "probes"][..],
                "--class probes: expected one of kubelet-probe, ",
            ),
            (&["--port", "http"], "--port http: expected a port number"),
            (
                &["--direction", "in"],
                "--direction in: expected one of ingress, egress",
            ),
            (&["--ip", "x"], "--ip x: expected an IP address"),
            (&["--port", "1", "--not"], "--not must stand right before"),
        ] {
            let error = parse(args).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
