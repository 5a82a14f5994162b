//! Label selectors.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::intern::{LabelSet, Sym, Symbols};
use crate::policy::Problem;

/// A compiled label selector: every requirement must hold; none at all selects everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Selector {
    requirements: Box<[Requirement]>,
}

#[derive(Clone, Debug, PartialEq)]
enum Requirement {
    In(Sym, Box<[Sym]>),
    NotIn(Sym, Box<[Sym]>),
    Exists(Sym),
    DoesNotExist(Sym),
}

impl Requirement {
    fn holds(&self, labels: &LabelSet) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            // A missing key is not in any set of values.
            Self::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Self::Exists(key) => labels.get(key).is_some(),
            Self::DoesNotExist(key) => labels.get(key).is_none(),
        }
    }
}

impl Selector {
    /// Compiles an API selector found at `field`.
    pub(crate) fn compile(
        selector: &LabelSelector,
        field: &str,
        symbols: &mut impl Symbols,
    ) -> Result<Self, (String, Problem)> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::In(
                symbols.sym(key),
                Box::new([symbols.sym(value)]),
            ));
        }
        for (i, expression) in selector.match_expressions.iter().flatten().enumerate() {
            let at = |leaf: &str| format!("{field}.matchExpressions[{i}].{leaf}");
            let key = symbols.sym(&expression.key);
            let values: Box<[Sym]> = expression
                .values
                .iter()
                .flatten()
                .map(|value| symbols.sym(value))
                .collect();
            let needs_values = matches!(expression.operator.as_str(), "In" | "NotIn");
            requirements.push(match expression.operator.as_str() {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" if values.is_empty() => Requirement::Exists(key),
                "DoesNotExist" if values.is_empty() => Requirement::DoesNotExist(key),
                "Exists" | "DoesNotExist" => {
                    return Err((
                        at("values"),
                        Problem::ValuesNotAllowed(expression.operator.clone()),
                    ));
                }
                other => return Err((at("operator"), Problem::Operator(other.to_owned()))),
            });
            if needs_values && expression.values.as_ref().is_none_or(Vec::is_empty) {
                return Err((
                    at("values"),
                    Problem::ValuesMissing(expression.operator.clone()),
                ));
            }
        }
        Ok(Self {
            requirements: requirements.into(),
        })
    }

    /// Whether the selector selects an object with these labels.
    pub(crate) fn matches(&self, labels: &LabelSet) -> bool {
        self.requirements.iter().all(|r| r.holds(labels))
    }

    /// Whether there is no requirement at all.
    pub(crate) fn selects_all(&self) -> bool {
        self.requirements.is_empty()
    }

    /// How many requirements fail: a measure of how far off an object is.
    pub(crate) fn misses(&self, labels: &LabelSet) -> usize {
        self.requirements
            .iter()
            .filter(|r| !r.holds(labels))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    use super::*;
    use crate::intern::Interner;

    fn expression(operator: &str, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "k".into(),
                operator: operator.into(),
                values: Some(values.iter().map(ToString::to_string).collect()),
            }]),
            match_labels: None,
        }
    }

    fn selects(selector: &LabelSelector, labels: &[(&str, &str)]) -> bool {
        let mut interner = Interner::default();
        let labels = labels
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        let labels = LabelSet::new(&labels, &mut interner);
        Selector::compile(selector, "s", &mut interner)
            .unwrap()
            .matches(&labels)
    }

    #[test]
    fn operators() {
        let cases = [
            // operator, values, k=a, k=b, k missing
            ("In", vec!["a"], [true, false, false]),
            ("In", vec!["a", "b"], [true, true, false]),
            ("NotIn", vec!["a"], [false, true, true]),
            ("NotIn", vec!["a", "b"], [false, false, true]),
            ("Exists", vec![], [true, true, false]),
            ("DoesNotExist", vec![], [false, false, true]),
        ];
        for (operator, values, want) in cases {
            let selector = expression(operator, &values);
            let got = [
                selects(&selector, &[("k", "a")]),
                selects(&selector, &[("k", "b")]),
                selects(&selector, &[("other", "a")]),
            ];
            assert_eq!(got, want, "{operator} {values:?}");
        }
    }

    #[test]
    fn labels_and_expressions_are_both_required() {
        let mut selector = expression("Exists", &[]);
        selector.match_labels = Some(BTreeMap::from([("x".into(), "1".into())]));
        assert!(selects(&selector, &[("k", "a"), ("x", "1")]));
        assert!(!selects(&selector, &[("k", "a"), ("x", "2")]));
        assert!(!selects(&selector, &[("x", "1")]));
        assert!(selects(&LabelSelector::default(), &[]));
    }

    #[test]
    fn what_the_api_refuses_is_refused_with_its_field() {
        let mut interner = Interner::default();
        for (operator, values, field) in [
            ("In", vec![], "s.matchExpressions[0].values"),
            ("NotIn", vec![], "s.matchExpressions[0].values"),
            ("Exists", vec!["a"], "s.matchExpressions[0].values"),
            ("DoesNotExist", vec!["a"], "s.matchExpressions[0].values"),
            ("Gt", vec!["1"], "s.matchExpressions[0].operator"),
            ("in", vec!["1"], "s.matchExpressions[0].operator"),
        ] {
            let error = Selector::compile(&expression(operator, &values), "s", &mut interner);
            assert_eq!(error.unwrap_err().0, field, "{operator}");
        }
    }
}
