//! A page as a browser reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use html5ever::tendril::TendrilSink as _;
use html5ever::tokenizer::TokenizerOpts;
use html5ever::tree_builder::TreeBuilderOpts;
use html5ever::{ParseOpts, parse_document};
use markup5ever_rcdom::{Handle, NodeData, RcDom};
use ring::digest;

/// A parsed page.
pub(crate) struct Html {
    dom: RcDom,
}

/// An element.
#[derive(Clone)]
pub(crate) struct Element {
    node: Handle,
    pub(crate) name: String,
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Html {
    /// Parses a page; what is no valid HTML fails the test.
    pub(crate) fn parse(text: &str) -> Self {
        let options = ParseOpts {
            tokenizer: TokenizerOpts {
                exact_errors: true,
                ..TokenizerOpts::default()
            },
            tree_builder: TreeBuilderOpts {
                exact_errors: true,
                ..TreeBuilderOpts::default()
            },
        };
        let dom = parse_document(RcDom::default(), options).one(text);
        assert!(dom.errors.borrow().is_empty(), "{:?}", dom.errors.borrow());
        Self { dom }
    }

    /// Every element, in the document's order.
    pub(crate) fn elements(&self) -> Vec<Element> {
        let mut found = Vec::new();
        collect(&self.dom.document, &mut found);
        found
    }

    pub(crate) fn all(&self, name: &str) -> Vec<Element> {
        let mut all = self.elements();
        all.retain(|element| element.name == name);
        all
    }

    pub(crate) fn with_class(&self, class: &str) -> Vec<Element> {
        let mut all = self.elements();
        all.retain(|element| element.has_class(class));
        all
    }

    /// All text that is shown, spaces folded.
    pub(crate) fn text(&self) -> String {
        self.all("body")[0].text()
    }

    /// The same, a line for each element that has one of its own.
    pub(crate) fn lines(&self) -> String {
        let mut text = String::new();
        shown(&self.all("body")[0].node, &mut text);
        let lines = text.lines().map(|line| line.split_whitespace());
        let lines = lines.map(|words| words.collect::<Vec<_>>().join(" "));
        lines
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// What holds of every page: it stands alone, runs nothing but its own script, and can be read by everyone.
    pub(crate) fn assert_sound(&self) {
        let elements = self.elements();
        let mut ids = BTreeSet::new();
        for element in &elements {
            for (name, value) in &element.attributes {
                assert!(!name.starts_with("on"), "{name}={value}");
                assert!(
                    !matches!(name.as_str(), "src" | "srcset" | "style" | "action"),
                    "{name}={value}"
                );
                if name == "href" {
                    assert!(value.starts_with('#'), "{value}");
                }
                if name == "id" {
                    assert!(ids.insert(value.clone()), "two with id {value}");
                }
            }
            for forbidden in ["img", "iframe", "link", "object", "embed", "base", "form"] {
                assert_ne!(element.name, forbidden);
            }
        }
        let refers = elements.iter().flat_map(|element| {
            let of = |name: &str| element.attributes.get(name).cloned();
            let target = of("href").map(|href| href.trim_start_matches('#').to_owned());
            target.into_iter().chain(of("aria-labelledby"))
        });
        for id in refers {
            assert!(ids.contains(&id), "nothing has id {id}");
        }
        self.assert_runs_only_its_own();
        let mut level = 0;
        for heading in &elements {
            let Some(next) = heading
                .name
                .strip_prefix('h')
                .and_then(|n| n.parse::<u8>().ok())
            else {
                continue;
            };
            assert!(next <= level + 1, "h{next} after h{level}");
            assert!(!heading.text().is_empty());
            level = next;
        }
        for cell in self.all("th") {
            assert!(cell.attributes.contains_key("scope"));
        }
        for table in self.all("table") {
            assert!(table.descendants().iter().any(|e| e.name == "caption"));
        }
        let html = &self.all("html")[0];
        assert_eq!(html.attributes.get("lang").map(String::as_str), Some("en"));
        assert_eq!((self.all("h1").len(), self.all("main").len()), (1, 1));
    }

    /// One style and one script, both by the hashes of the policy.
    fn assert_runs_only_its_own(&self) {
        let meta = self.all("meta");
        let policy = meta
            .iter()
            .find(|meta| meta.attributes.contains_key("http-equiv"))
            .unwrap();
        let policy = &policy.attributes["content"];
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, directive) in [("style", "style-src"), ("script", "script-src")] {
            let own = self.all(name);
            assert_eq!(own.len(), 1, "{name}");
            let hash = digest::digest(&digest::SHA256, own[0].raw_text().as_bytes());
            let wanted = format!("{directive} 'sha256-{}'", STANDARD.encode(hash));
            assert!(
                policy.split("; ").any(|one| one == wanted),
                "{wanted} is not in {policy}"
            );
        }
    }
}

impl Element {
    pub(crate) fn has_class(&self, class: &str) -> bool {
        let classes = self.attributes.get("class");
        classes.is_some_and(|all| all.split(' ').any(|one| one == class))
    }

    /// Its text, spaces folded.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        shown(&self.node, &mut text);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Its text as it stands.
    pub(crate) fn raw_text(&self) -> String {
        let mut text = String::new();
        for child in self.node.children.borrow().iter() {
            raw(child, &mut text);
        }
        text
    }

    pub(crate) fn descendants(&self) -> Vec<Element> {
        let mut found = Vec::new();
        for child in self.node.children.borrow().iter() {
            collect(child, &mut found);
        }
        found
    }
}

fn collect(node: &Handle, found: &mut Vec<Element>) {
    if let NodeData::Element { name, attrs, .. } = &node.data {
        let attributes = attrs.borrow();
        let attributes = attributes.iter().map(|attribute| {
            (
                attribute.name.local.to_string(),
                attribute.value.to_string(),
            )
        });
        found.push(Element {
            node: Rc::clone(node),
            name: name.local.to_string(),
            attributes: attributes.collect(),
        });
    }
    for child in node.children.borrow().iter() {
        collect(child, found);
    }
}

fn raw(node: &Handle, text: &mut String) {
    if let NodeData::Text { contents } = &node.data {
        text.push_str(&contents.borrow());
    }
    for child in node.children.borrow().iter() {
        raw(child, text);
    }
}

/// Text that is shown; elements that stand on lines of their own keep it apart.
fn shown(node: &Handle, text: &mut String) {
    if let NodeData::Element { name, .. } = &node.data {
        if matches!(&*name.local, "style" | "script") {
            return;
        }
        match &*name.local {
            "span" | "a" | "code" | "q" | "time" | "strong" => {}
            "dd" | "td" | "th" => text.push(' '),
            _ => text.push('\n'),
        }
    }
    if let NodeData::Text { contents } = &node.data {
        text.push_str(&contents.borrow());
    }
    for child in node.children.borrow().iter() {
        shown(child, text);
    }
}
