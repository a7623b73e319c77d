//! Texts that are compared with a file in tests/golden.

use std::path::Path;

use pretty_assertions::assert_eq;

/// Is the text that of the file? With `GOLDEN=write` in the environment the file is written instead.
#[track_caller]
pub fn assert_golden(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&path).unwrap_or_default(),
        text,
        "{file} differs"
    );
}
