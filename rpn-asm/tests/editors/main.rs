//! The grammars in `editors/`: they are made here from the tables of the language, and colour programs as they should. With `BLESS=1` in
//! the environment the files are written instead of compared.

mod grammar;
mod sublime;
mod vim;

use dprobes::rpn::op::{Flow, Op, Operand, facility};
use dprobes::rpn::reg::Reg;
use std::path::{Path, PathBuf};
use syntect::parsing::{ParseState, ScopeStack, SyntaxReference, SyntaxSet, SyntaxSetBuilder};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files() -> Vec<(&'static str, String)> {
    let grammar = grammar::grammar();
    let json = serde_json::to_string_pretty(&grammar).unwrap() + "\n";
    vec![
        ("editors/vscode/syntaxes/dprobes.tmLanguage.json", json),
        ("editors/bat/DProbes.sublime-syntax", sublime::from(&grammar)),
        ("editors/vim/syntax/dprobes.vim", vim::syntax()),
    ]
}

#[test]
fn files_are_made_from_the_tables() {
    for (path, text) in files() {
        let path = root().join(path);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{} is out of date: set BLESS=1", path.display());
    }
}

fn syntaxes() -> SyntaxSet {
    let mut builder = SyntaxSetBuilder::new();
    let text = sublime::from(&grammar::grammar());
    builder.add(syntect::parsing::SyntaxDefinition::load_from_str(&text, true, None).unwrap());
    builder.build()
}

/// A piece of text without white space around it, and its scopes, outermost first.
type Coloured = (String, Vec<String>);

fn colour(set: &SyntaxSet, text: &str) -> Vec<Coloured> {
    let syntax: &SyntaxReference = set.find_syntax_by_extension("rpn").unwrap();
    let mut state = ParseState::new(syntax);
    let mut stack = ScopeStack::new();
    let mut out = Vec::new();
    for line in text.split_inclusive('\n') {
        let mut at = 0;
        let mut emit = |range: std::ops::Range<usize>, stack: &ScopeStack| {
            let piece = line[range].trim();
            if !piece.is_empty() {
                let scopes = stack.as_slice().iter().map(|s| s.build_string()).collect();
                out.push((piece.to_owned(), scopes));
            }
        };
        for (position, op) in state.parse_line(line, set).unwrap() {
            emit(at..position, &stack);
            at = position;
            stack.apply(&op).unwrap();
        }
        emit(at..line.len(), &stack);
    }
    out
}

/// The innermost scope of the first piece that is this text.
#[track_caller]
fn scope(coloured: &[Coloured], text: &str) -> String {
    let found = coloured.iter().find(|(t, _)| t == text);
    let (_, scopes) = found.unwrap_or_else(|| panic!("no {text:?} in {coloured:?}"));
    scopes.last().cloned().unwrap_or_default()
}

/// All programs there are: examples, tests, and those in the documentation.
fn programs() -> Vec<String> {
    let mut all = Vec::new();
    for folder in ["examples", "tests/programs"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "rpn") {
                all.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let document = std::fs::read_to_string(root().join("docs/language.md")).unwrap();
    let blocks = document.split("```").skip(1).step_by(2);
    all.extend(blocks.filter_map(|b| Some(b.strip_prefix("rpn")?.split_once('\n')?.1.to_owned())));
    assert!(all.len() > 20);
    all
}

#[test]
fn nothing_is_left_without_a_scope() {
    let set = syntaxes();
    for program in programs() {
        for (text, scopes) in colour(&set, &program) {
            assert_eq!(scopes[0], "source.dprobes");
            let scope = scopes.last().unwrap();
            let named = !scope.starts_with("meta.") && !scope.starts_with("invalid.");
            assert!(scopes.len() > 1 && named, "{text:?} has {scopes:?} in\n{program}");
        }
    }
}

#[test]
fn what_is_wrong_is_shown_so() {
    let set = syntaxes();
    for (text, wrong) in [("push 12a", "12a"), ("push 1 @ 2", "@"), ("push 1.5", "1.5")] {
        assert!(
            scope(&colour(&set, text), wrong).starts_with("invalid.illegal"),
            "{text}"
        );
    }
}

#[test]
fn every_instruction_has_its_scopes() {
    let set = syntaxes();
    for op in Op::ALL {
        let info = op.info();
        let operand = match info.operand {
            Operand::None => "",
            Operand::Branch => "somewhere",
            Operand::Reg => "rax",
            Operand::Facility => "trace",
            Operand::S16 => "-12",
            _ => "12",
        };
        let separator = if info.selectors.is_empty() || operand.is_empty() {
            ""
        } else {
            ","
        };
        let text = format!("here: {op}{separator} {operand} // log");
        let coloured = colour(&set, &text);
        let mnemonic = match info.flow {
            Flow::Next | Flow::Handler => "keyword.mnemonic.dprobes",
            _ => "keyword.control.dprobes",
        };
        assert_eq!(scope(&coloured, info.mnemonic), mnemonic, "{text}");
        for selector in info.selectors {
            let all: Vec<_> = coloured.iter().filter(|(t, _)| t == selector).collect();
            let right = |(_, scopes): &&Coloured| scopes.last().is_some_and(|s| s == "storage.type.selector.dprobes");
            assert!(all.iter().any(right), "{text}: {coloured:?}");
        }
        let wanted = match info.operand {
            Operand::None => continue,
            Operand::Branch => "variable.other.label.dprobes",
            Operand::Reg => "variable.language.register.dprobes",
            Operand::Facility => "support.constant.facility.dprobes",
            _ => "constant.numeric.decimal.dprobes",
        };
        // The last that is no comment; the sign is an operator.
        let last = coloured
            .iter()
            .rfind(|(_, scopes)| !scopes.iter().any(|s| s.starts_with("comment")))
            .unwrap();
        assert_eq!(last.1.last().unwrap(), wanted, "{text}: {coloured:?}");
    }
}

#[test]
fn registers_items_and_other_words_have_their_scopes() {
    let set = syntaxes();
    for reg in Reg::ALL {
        let coloured = colour(&set, &format!("push r, {reg}"));
        assert_eq!(scope(&coloured, reg.name()), "variable.language.register.dprobes");
    }
    for (name, _) in facility::NAMES {
        assert_eq!(
            scope(&colour(&set, &format!("exit_to {name}")), name),
            "support.constant.facility.dprobes"
        );
    }
    for (name, _) in dprobes::rpn::exception::CODES {
        assert_eq!(
            scope(&colour(&set, &format!("ex_mask = {name} | 1")), name),
            "support.constant.exception.dprobes"
        );
    }
    for item in grammar::items() {
        assert_eq!(
            scope(&colour(&set, &format!("{item} = 1")), &item),
            "support.type.property-name.dprobes"
        );
    }
    for (text, word, wanted) in [
        ("again: nop", "again", "entity.name.label.dprobes"),
        ("map opens = count, keys = 1", "map", "storage.type.map.dprobes"),
        ("map opens = count, keys = 1", "opens", "entity.name.type.map.dprobes"),
        ("map opens = count, keys = 1", "count", "support.type.map-kind.dprobes"),
        (
            "map opens = count, keys = 1",
            "keys",
            "variable.parameter.option.dprobes",
        ),
        ("modtype = kmod", "kmod", "constant.language.dprobes"),
        ("logonfault = yes", "yes", "constant.language.dprobes"),
        ("watch = rw 8", "rw", "constant.language.dprobes"),
        ("#define A(x) push r, x", "define", "keyword.control.directive.dprobes"),
        (
            "#define A(x) push r, x",
            "A",
            "entity.name.function.preprocessor.dprobes",
        ),
        ("#define A(x) push r, x", "push", "keyword.mnemonic.dprobes"),
        ("#ifdef B // c", "B", "variable.other.dprobes"),
        ("#include <a.h>", "<a.h>", "string.quoted.other.lt-gt.include.dprobes"),
        ("LOG(rdi); exit", "LOG", "entity.name.function.preprocessor.dprobes"),
        ("LOG(rdi); exit", "exit", "keyword.control.dprobes"),
        ("push 'a' + 0x1f", "0x1f", "constant.numeric.hex.dprobes"),
        ("push lv, cpu", "cpu", "variable.other.dprobes"),
        ("push \"a\\n\"", "\\n", "constant.character.escape.dprobes"),
        ("/* push\n push */ nop", "nop", "keyword.mnemonic.dprobes"),
        ("push 1 \\\n + work.isra.0", "work.isra.0", "variable.other.dprobes"),
    ] {
        assert_eq!(scope(&colour(&set, text), word), wanted, "{text}");
    }
    let comment = colour(&set, "exit // push 1\n/* a\n push */ nop");
    let inside = comment
        .iter()
        .filter(|(_, s)| s.iter().any(|s| s.starts_with("comment.")));
    assert_eq!(
        inside.map(|(t, _)| t.as_str()).collect::<Vec<_>>(),
        ["//", "push 1", "/*", "a", "push", "*/"]
    );
}
