//! `docs/language.md` against what is implemented: the tables against those of the engine, the examples by assembling them.

use dprobes::rpn::op::{Op, Operand, Words};
use dprobes::rpn::reg::Reg;
use dprobes::rpn::{exception, limits};
use rpn_asm::{Options, assemble};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/language.md");
    std::fs::read_to_string(path).unwrap()
}

/// The rows of all tables whose first column has this title.
fn rows(title: &str) -> Vec<Vec<String>> {
    let document = document();
    let mut found = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        let cells = |line: &str| -> Vec<String> {
            // `\|` is text.
            let line = line.replace("\\|", "\0");
            let cells: Vec<_> = line.split('|').map(|c| c.trim().replace('\0', "|")).collect();
            cells[1..cells.len() - 1].to_vec()
        };
        if !line.starts_with('|') {
            inside = false;
        } else if line.starts_with("|---") {
        } else if inside {
            found.push(cells(line));
        } else {
            inside = cells(line).first().is_some_and(|c| c == title);
        }
    }
    assert!(!found.is_empty(), "no table with {title}");
    found
}

fn form(op: Op) -> String {
    let operand = match op.info().operand {
        Operand::None => return op.to_string(),
        Operand::Branch => "LABEL",
        Operand::Reg => "REGISTER",
        Operand::Local | Operand::Global => "VARIABLE",
        Operand::Map => "MAP",
        Operand::Group => "GROUP",
        Operand::Facility => "FACILITY",
        Operand::S16 => "POSITION",
        Operand::U8 | Operand::U16 | Operand::Word => "NUMBER",
    };
    let separator = if op.info().selectors.is_empty() { " " } else { ", " };
    format!("{op}{separator}{operand}")
}

fn unquote(cell: &str) -> &str {
    cell.strip_prefix('`')
        .and_then(|c| c.strip_suffix('`'))
        .unwrap_or_else(|| panic!("{cell} is not in back quotes"))
}

#[test]
fn every_instruction_is_documented_and_no_other() {
    let documented: Vec<String> = rows("instruction").iter().map(|r| unquote(&r[0]).to_owned()).collect();
    let unique: BTreeSet<_> = documented.iter().cloned().collect();
    assert_eq!(unique.len(), documented.len(), "documented twice");
    assert_eq!(unique, Op::ALL.iter().map(|op| form(*op)).collect());
}

#[test]
fn stacks_are_as_the_engine_has_them() {
    let rows: BTreeMap<String, Vec<String>> = rows("instruction")
        .into_iter()
        .map(|r| (unquote(&r[0]).to_owned(), r))
        .collect();
    for op in Op::ALL {
        let info = op.info();
        let stack = unquote(&rows[&form(*op)][1]);
        let (before, after) = stack.split_once("--").unwrap();
        for (side, words) in [(before, info.pops), (after, info.pushes)] {
            let written: Vec<_> = side.split_whitespace().collect();
            match words {
                Words::Fixed(n) => {
                    assert!(!side.contains("..."), "{op}: {stack}");
                    assert_eq!(written.len(), usize::from(n), "{op}: {stack}");
                }
                Words::Any => {}
                _ => assert!(side.contains("..."), "{op}: {stack}"),
            }
        }
        // Where the engine's own line has a picture, it is the same.
        if let Some(picture) = info.doc.split_once('(').and_then(|(_, d)| d.split_once(')'))
            && picture.0.contains("--")
        {
            assert_eq!(stack, picture.0, "{op}");
        }
    }
}

#[test]
fn registers_are_as_the_engine_has_them() {
    let mut documented = BTreeMap::new();
    for row in rows("registers") {
        for word in row[0].split('`').filter(|w| Reg::from_name(w).is_some()) {
            assert_eq!(documented.insert(word.to_owned(), row[1] == "yes"), None, "{word}");
        }
    }
    // `xmm0` to `xmm31`
    for stem in ["xmm", "ymm", "zmm"] {
        let writable = documented[&format!("{stem}0")];
        assert_eq!(documented[&format!("{stem}31")], writable);
        documented.extend((1..31).map(|n| (format!("{stem}{n}"), writable)));
    }
    let all = Reg::ALL.iter().map(|r| (r.name().to_owned(), r.is_writable()));
    assert_eq!(documented, all.collect());
}

#[test]
fn exceptions_and_limits_are_as_the_engine_has_them() {
    let documented: Vec<_> = rows("exception")
        .iter()
        .map(|r| (unquote(&r[0]).to_owned(), r[1].clone()))
        .collect();
    let all: Vec<_> = exception::CODES
        .iter()
        .map(|(name, code)| ((*name).to_owned(), format!("{code:#06x}")))
        .collect();
    assert_eq!(documented, all);
    let document = document();
    for fact in [
        format!("| `logmax` | bytes of log elements per hit, 0 to {}", limits::LOG_MAX),
        format!(
            "| `ex_logmax` | bytes of stack-trace elements per hit, 0 to {}",
            limits::EX_LOG_MAX
        ),
        format!("| `jmpmax` | jumps taken per hit, 0 to {}", limits::JMP_MAX),
        format!("| local variables, global variables | {} each", limits::LOCALS_MAX),
        format!("| name of a variable or map | {} bytes", limits::VARIABLE_NAME_MAX),
        format!("| name of a symbol, `display` | {} bytes", limits::SYMBOL_MAX),
        format!("| `name` | {} bytes", limits::NAME_MAX),
        format!(
            "| code of a program, and of one handler | {} MiB, 65,535 bytes",
            limits::CODE_MAX >> 20
        ),
        format!(
            "| `heapmax` | bytes of the byte heap per hit, 0 to {}",
            limits::HEAP_MAX
        ),
        format!(
            "| global variables of different names, in the system | {}",
            limits::SYSTEM_GLOBALS_MAX
        ),
        format!(
            "| variables that are allocated at a time | {0} of the system, {0} for each program",
            limits::POOL_VARIABLES
        ),
        format!(
            "| maps of a program, and what they take on each CPU | {}, {} MiB",
            limits::MAPS_MAX,
            limits::MAP_BYTES_MAX >> 20
        ),
        format!("| `keys` | words that are the key, 0 to {}", limits::MAP_KEYS_MAX),
        format!(
            "on each CPU, 1 to {} | 1 without keys, else {}",
            limits::MAP_ENTRIES_MAX,
            limits::MAP_ENTRIES
        ),
        format!("there are at most {} ranges", limits::MAP_BUCKETS_MAX),
        format!("| byte heap | 16,384 bytes, {} blocks", limits::HEAP_BLOCKS),
        format!("at most max of them, 0 to {}", limits::STACK_TRACE_MAX),
        format!("| strings of a program | {} MiB", limits::STRINGS_MAX >> 20),
        format!("| stack | {} words", limits::STACK_WORDS),
        format!("| nested calls | {} ", limits::CALL_DEPTH),
        format!("those that handlers get | {:#x}", exception::DEFAULT_MASK),
    ] {
        assert!(document.contains(&fact), "{fact}");
    }
    assert_eq!(
        (limits::POINTS_MAX, limits::INSTRUCTION_BUDGET, limits::GRACE_BUDGET),
        (131_072, 1_000_000, 10_000)
    );
    assert_eq!(limits::GLOBALS_MAX, limits::LOCALS_MAX);
    assert_eq!((limits::HEAP_MAX, limits::HANDLER_MAX), (16_384, 65_535));
}

#[test]
fn items_are_those_of_the_assembler() {
    let mut documented: BTreeSet<String> = BTreeSet::new();
    for row in rows("item") {
        documented.extend(row[0].split('`').skip(1).step_by(2).map(str::to_owned));
    }
    let unknown = assemble("t", "no_item_at_all = 1", &Options::default())
        .unwrap_err()
        .to_string();
    let known = unknown.lines().filter(|l| l.contains("= note: items of"));
    let known = known.flat_map(|l| l.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(documented, known.collect());
    let directives: BTreeSet<String> = rows("directive")
        .iter()
        .flat_map(|r| r[0].split('#').skip(1).map(str::to_owned).collect::<Vec<_>>())
        .map(|d| d.split(|c: char| !c.is_alphabetic()).next().unwrap().to_owned())
        .collect();
    let unknown = assemble("t", "#nonsense", &Options::default()).unwrap_err().to_string();
    let known = unknown
        .split('`')
        .filter_map(|w| w.strip_prefix('#'))
        .filter(|w| *w != "nonsense");
    assert_eq!(directives, known.map(str::to_owned).collect());
}

#[test]
fn examples_assemble_and_verify() {
    let head = "name = \"kernel\"\nmodtype = kernel\nmajor = 1\nvars = opens, fails\noffset = f\nminor = 1\n";
    let mut count = 0;
    for block in document().split("```").skip(1).step_by(2) {
        let (kind, text) = block.split_once('\n').unwrap();
        let program = match kind {
            "rpn" => text.to_owned(),
            "rpn-part" => format!("{head}{text}"),
            // The tests of the command run these, and see that no instruction is left out.
            "rpn-head" | "rpn-run" | "sh" | "text" => continue,
            other => panic!("a block of {other:?}"),
        };
        let assembled = assemble("example", &program, &Options::default()).unwrap_or_else(|e| panic!("{program}\n{e}"));
        assembled.verify().unwrap_or_else(|e| panic!("{program}\n{e}"));
        count += 1;
    }
    assert!(count >= 5);
}

#[test]
fn the_message_is_what_the_assembler_says() {
    let text = "name = \"kernel\"\nmodtype = kernel\nmajor = 1\n\noffset = f\nminor = 1\n\n\n        push    r, rxa\n        exit\n";
    let said = assemble("t.rpn", text, &Options::default()).unwrap_err().to_string();
    assert!(document().contains(&format!("```text\n{said}```")), "{said}");
}
