//! The manual pages in docs/man, made from what there is: dprobes(1) from the command line, dprobes-rpn(5) from docs/language.md.
//!
//! The tests here fail when a page is not up to date; with `GOLDEN=write` in the environment they write it instead.

mod command;
mod language;

use std::path::{Path, PathBuf};
use std::process::Command;

use pretty_assertions::assert_eq;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[track_caller]
fn assert_page(name: &str, page: &str) {
    let path = root().join("docs/man").join(name);
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        written, page,
        "docs/man/{name} is out of date: run `GOLDEN=write cargo test -p dprobes-cli man`"
    );
    assert_renders(&path);
}

/// groff has nothing to complain about, where it is installed.
#[track_caller]
fn assert_renders(path: &Path) {
    let mut groff = Command::new("groff");
    groff.args(["-man", "-Tutf8", "-ww", "-rCHECKSTYLE=1"]).arg(path);
    let Ok(output) = groff.output() else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.success(), &*said), (true, ""), "{}", path.display());
    assert!(output.stdout.len() > 1000);
}

/// Text with what roff would obey made harmless.
fn escape(text: &str) -> String {
    let text = text
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq")
        .replace('`', "\\(ga");
    let text = text.replace('^', "\\(ha").replace('~', "\\(ti");
    // A control character at the beginning of a line.
    text.lines()
        .map(|line| {
            if line.starts_with('.') {
                format!("\\&{line}")
            } else {
                line.to_owned()
            }
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Lines that stay as they are.
fn literal(text: &str) -> String {
    format!(".PP\n.in +4n\n.EX\n{}\n.EE\n.in\n", escape(text.trim_end()))
}

#[test]
fn what_roff_would_obey_is_escaped() {
    assert_eq!(
        escape("a\\n -x 'b' `c`\n.SH"),
        "a\\en \\-x \\(aqb\\(aq \\(gac\\(ga\n\\&.SH"
    );
}

#[test]
fn the_page_of_the_command_is_up_to_date() {
    assert_page("dprobes.1", &command::page());
}

#[test]
fn the_page_of_the_language_is_up_to_date() {
    let document = std::fs::read_to_string(root().join("docs/language.md")).unwrap();
    assert_page("dprobes-rpn.5", &language::page(&document));
}
