//! What is kept of input that may be long or hostile: a bounded part of it.

/// Characters of a name that are kept: Kubernetes allows 253.
const NAME: usize = 260;

/// Characters of a sentence that are kept.
const SENTENCE: usize = 600;

/// A name as it is shown.
pub(super) fn name(text: &str) -> String {
    clip(text, NAME)
}

/// A sentence as it is shown.
pub(super) fn sentence(text: &str) -> String {
    clip(text, SENTENCE)
}

/// At most `most` characters, of which none breaks a line or turns the direction of writing.
pub(super) fn clip(text: &str, most: usize) -> String {
    let mut clipped: String = text
        .chars()
        .take(most)
        .map(|c| {
            let bidi =
                matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            let breaks = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
            // Noncharacters are no HTML.
            let none = matches!(u32::from(c) & 0xffff, 0xfffe | 0xffff)
                || ('\u{fdd0}'..='\u{fdef}').contains(&c);
            if bidi || breaks || none { '\u{fffd}' } else { c }
        })
        .collect();
    if text.chars().nth(most).is_some() {
        clipped.push('…');
    }
    clipped
}

/// The first `N` distinct values, with the packets of each; of others, their packets only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Few<T, const N: usize> {
    kept: Vec<(T, u64)>,
    rest: Option<u64>,
}

impl<T, const N: usize> Default for Few<T, N> {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            rest: None,
        }
    }
}

impl<T: PartialEq, const N: usize> Few<T, N> {
    /// Counts packets of a value.
    pub(super) fn add(&mut self, value: T, packets: u64) {
        let count = if let Some((_, count)) = self.kept.iter_mut().find(|(kept, _)| *kept == value)
        {
            count
        } else if self.kept.len() < N {
            self.kept.push((value, packets));
            return;
        } else {
            self.rest.get_or_insert(0)
        };
        *count = count.saturating_add(packets);
    }
}

impl<T, const N: usize> Few<T, N> {
    /// The values that are kept, in the order they were first seen.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.kept.iter().map(|(value, _)| value)
    }

    /// The same, with the packets of each.
    pub(super) fn counted(&self) -> impl Iterator<Item = (&T, u64)> {
        self.kept.iter().map(|(value, packets)| (value, *packets))
    }

    /// The packets of what was not kept, where there was any.
    pub(super) const fn rest(&self) -> Option<u64> {
        self.rest
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_and_keeps_to_its_line() {
        assert_eq!(name("vault-0"), "vault-0");
        assert_eq!(clip("äöü", 3), "äöü");
        assert_eq!(clip("äöüß", 3), "äöü…");
        assert_eq!(
            clip("a\nb\0c\u{202e}d\u{ffff}e", 99),
            "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}e"
        );
        assert_eq!(sentence(&"x".repeat(1 << 20)).chars().count(), SENTENCE + 1);
    }

    #[test]
    fn the_first_few_are_kept_and_the_rest_is_counted() {
        let mut few = Few::<_, 2>::default();
        for (value, packets) in [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("d", u64::MAX)] {
            few.add(value, packets);
        }
        assert_eq!(few.counted().collect::<Vec<_>>(), [(&"a", 4), (&"b", 2)]);
        assert_eq!(few.rest(), Some(u64::MAX));
        assert_eq!(Few::<u8, 1>::default().rest(), None);
    }
}
