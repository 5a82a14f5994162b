//! The bytes that fuzzing found interesting, of which the same has to hold.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test, which says what it tries"
)]

#[path = "../../fuzz/src/lib.rs"]
mod checks;

use std::fs;
use std::path::Path;

fn each(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut files = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        // A failure prints this, and where to look then.
        println!("{}", path.display());
        check(&fs::read(&path).unwrap());
        files += 1;
    }
    assert!(files > 10, "{files} files in {}", folder.display());
}

#[test]
fn headers() {
    each("headers", checks::headers);
}

#[test]
fn records() {
    each("record", checks::record);
}

#[test]
fn clusters() {
    each("cluster", checks::cluster);
}
