//! Interned strings: label keys and values are compared by address while a flow is judged.

use std::collections::HashSet;
use std::sync::Arc;

use crate::model::Labels;

/// An interned string. Equal only to a symbol of the same interner with the same text.
#[derive(Clone, Debug)]
pub(crate) struct Sym(Arc<str>);

impl PartialEq for Sym {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Sym {}

/// Where a compiler gets its symbols from.
pub(crate) trait Symbols {
    /// The symbol of `text`.
    fn sym(&mut self, text: &str) -> Sym;
}

/// Every string that is in use, once. Strings nobody uses any more are swept out as the set grows, so
/// that label values which come and go with every roll-out do not pile up.
#[derive(Clone, Debug)]
pub(crate) struct Interner {
    strings: HashSet<Arc<str>>,
    sweep_at: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Self {
            strings: HashSet::new(),
            sweep_at: Self::MIN_SWEEP,
        }
    }
}

impl Interner {
    const MIN_SWEEP: usize = 4096;

    fn sweep(&mut self) {
        self.strings.retain(|text| Arc::strong_count(text) > 1);
        self.sweep_at = (self.strings.len() * 2).max(Self::MIN_SWEEP);
    }

    /// A view for compiling something that is judged against this interner's labels but not kept.
    pub(crate) fn known(&self) -> Known<'_> {
        Known(self)
    }
}

impl Symbols for Interner {
    fn sym(&mut self, text: &str) -> Sym {
        if let Some(known) = self.strings.get(text) {
            return Sym(Arc::clone(known));
        }
        if self.strings.len() >= self.sweep_at {
            self.sweep();
        }
        let text: Arc<str> = text.into();
        self.strings.insert(Arc::clone(&text));
        Sym(text)
    }
}

/// Symbols of an interner that is not changed: text it does not know gets a symbol equal to none of its
/// own, which is just what such text is.
pub(crate) struct Known<'a>(&'a Interner);

impl Symbols for Known<'_> {
    fn sym(&mut self, text: &str) -> Sym {
        match self.0.strings.get(text) {
            Some(known) => Sym(Arc::clone(known)),
            None => Sym(text.into()),
        }
    }
}

/// Labels as symbols.
#[derive(Clone, Debug, Default)]
pub(crate) struct LabelSet(Box<[(Sym, Sym)]>);

impl LabelSet {
    pub(crate) fn new(labels: &Labels, symbols: &mut impl Symbols) -> Self {
        Self(
            labels
                .iter()
                .map(|(key, value)| (symbols.sym(key), symbols.sym(value)))
                .collect(),
        )
    }

    /// The value of `key`. Objects carry a handful of labels: a scan beats any map.
    pub(crate) fn get(&self, key: &Sym) -> Option<&Sym> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_text_is_same_symbol_and_other_text_is_not() {
        let mut interner = Interner::default();
        let a = interner.sym("a");
        assert_eq!(a, interner.sym("a"));
        assert_ne!(a, interner.sym("b"));
        assert_eq!(a, interner.known().sym("a"));
        assert_ne!(interner.known().sym("new"), interner.known().sym("new"));
    }

    #[test]
    fn what_nobody_uses_is_swept_out() {
        let mut interner = Interner::default();
        let kept = interner.sym("kept");
        for i in 0..3 * Interner::MIN_SWEEP {
            interner.sym(&format!("value-{i}"));
        }
        assert!(interner.strings.len() <= Interner::MIN_SWEEP);
        assert_eq!(kept, interner.sym("kept"));
    }
}
