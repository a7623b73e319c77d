//! What the assembler says of each program in `diagnostics/`, compared with the file of the same name that ends in `.txt`. With
//! `BLESS=1` in the environment those files are written instead. A first line `// args: -D A=B` gives options.

use rpn_asm::{Diagnostics, Options, Style, assemble};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn options(text: &str) -> Options {
    let words = text.lines().next().and_then(|l| l.strip_prefix("// args: "));
    let mut options = Options::default();
    for definition in words.unwrap_or("").split("-D ").filter(|d| !d.is_empty()) {
        options.defines.push(definition.trim().into());
    }
    options
}

fn say(program: &Path) -> String {
    let text = fs::read_to_string(program).unwrap();
    // The name as a user in this folder would give it.
    let name = program.file_name().unwrap().to_str().unwrap();
    match assemble(name, &text, &options(&text)) {
        Err(diagnostics) => diagnostics.to_string(),
        Ok(assembled) => {
            let mut out = assembled.warnings.to_string();
            if let Err(unsafe_) = assembled.verify() {
                write!(out, "{unsafe_}").unwrap();
            }
            out
        }
    }
}

#[test]
fn every_mistake_is_explained() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics");
    std::env::set_current_dir(&folder).unwrap();
    let mut programs: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "rpn"))
        .collect();
    programs.sort();
    assert!(programs.len() > 40);
    let mut wrong = Vec::new();
    for program in programs {
        let said = say(&program);
        assert!(!said.is_empty(), "{}: nothing to say", program.display());
        let expected = program.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(expected, said).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("--- {}\n{said}", program.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "set BLESS=1 if this is as it should be:\n{}",
        wrong.join("\n")
    );
}

fn errors(text: &str) -> Diagnostics {
    assemble("t.rpn", text, &Options::default()).unwrap_err()
}

#[test]
fn places_are_exact() {
    let text = "#define BAD rxa\nname = \"kernel\"\nmodtype = kernel\nmajor = 1\noffset = f\nminor = 1\n \u{e9}\n  push r, BAD\n  exit\n";
    let e = errors(text);
    let places: Vec<_> = e
        .iter()
        .map(|d| e.location(d).map(|l| (l.line, l.column)).unwrap())
        .collect();
    // The register is wrong in the macro; where the macro is used is in the rendered text.
    assert_eq!(places, [(7, 2), (1, 13)]);
    assert!(e.to_string().contains("t.rpn:8:11"), "{e}");
}

#[test]
fn colours_only_when_asked_for() {
    let e = errors("x");
    assert!(!e.render(Style::Plain).contains('\x1b'));
    assert!(e.render(Style::Coloured).contains("\x1b["));
}
