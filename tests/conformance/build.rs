//! Makes objects of the programs in dprobes/tests/rpn/conformance.txt, for kernels that have no assembler.

use std::path::PathBuf;
use std::{env, fs};

#[path = "../../dprobes/tests/rpn/build.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod build;

use build::{Builder, number};

const TABLE: &str = "../../dprobes/tests/rpn/conformance.txt";

fn main() {
    for path in [TABLE, "../../dprobes/tests/rpn/build.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let table = fs::read_to_string(TABLE).expect("the table is there");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut text = String::new();
    for (index, (settings, program, results)) in cases(&table).enumerate() {
        let object = out.join(format!("{index}.dpo"));
        text += &case(&settings, &program, &results, &object);
    }
    fs::write(out.join("cases.rs"), format!("&[\n{text}]\n")).expect("OUT_DIR is writable");
}

/// A case as an expression, after its object was written.
fn case(settings: &[(String, String)], program: &str, results: &[String], object: &PathBuf) -> String {
    let (mut locals, mut globals) = (vec![0; 4], vec![0; 2]);
    let mut user = false;
    let mut builder = Builder::text(program, 0);
    for (key, value) in settings {
        let list = || value.split(',').map(number).collect();
        match key.as_str() {
            "mask" => builder = builder.ex_mask(number(value) as u16),
            "logmax" => builder = builder.logmax(number(value) as u16),
            "ex_logmax" => builder = builder.ex_logmax(number(value) as u16),
            "jmpmax" => builder = builder.jmpmax(number(value) as u16),
            "heap" => builder = builder.heap(number(value) as u16),
            "group" => builder = builder.group(number(value) as u16),
            "auto" => builder = builder.auto_stack_trace(),
            "user" => user = true,
            "maps" => {
                for (kind, keys) in value.split(',').map(map) {
                    builder = builder.map(kind, keys, 8);
                }
            }
            "locals" => locals = list(),
            "globals" => globals = list(),
            _ => panic!("no setting: {key}"),
        }
    }
    builder.locals.resize(locals.len(), Default::default());
    builder = builder.globals(globals.len());
    fs::write(object, builder.bytes()).expect("OUT_DIR is writable");
    let expected: Vec<String> = results.iter().map(|result| canonical(result)).collect();
    let expected = expected.join(" | ");
    let raw = expected.contains("| raw ");
    format!(
        "Case {{ program: {program:?}, object: include_bytes!({object:?}), user: {user}, locals: &{locals:?}, globals: &{globals:?}, \
         raw: {raw}, expected: {expected:?} }},\n"
    )
}

/// The cases: settings, program, results.
fn cases(table: &str) -> impl Iterator<Item = (Vec<(String, String)>, String, Vec<String>)> {
    let lines = table.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (program, results) = line.split_once("=>").expect(line);
            let (settings, program) = match program.trim().strip_prefix('[') {
                Some(rest) => rest.split_once(']').expect(line),
                None => ("", program),
            };
            let setting = |word: &str| {
                let (key, value) = word.split_once('=').unwrap_or((word, ""));
                (key.to_owned(), value.to_owned())
            };
            (
                settings.split_whitespace().map(setting).collect(),
                program.trim().to_owned(),
                results.split('|').map(|result| result.trim().to_owned()).collect(),
            )
        })
}

fn numbers(words: impl IntoIterator<Item = u64>) -> String {
    words.into_iter().map(|word| format!(" {word:#x}")).collect()
}

/// A result with its numbers as they are printed.
fn canonical(result: &str) -> String {
    let (word, rest) = result.split_once(' ').unwrap_or((result, ""));
    let bytes = |rest: &str| {
        rest.split_whitespace()
            .map(|byte| format!(" {byte}"))
            .collect::<String>()
    };
    let many = |rest: &str| numbers(rest.split_whitespace().map(number));
    match word {
        "str" | "mem" | "raw" => format!("{word} {rest}").trim().to_owned(),
        "reg" | "ram" => {
            let (what, rest) = rest.split_once(' ').unwrap();
            if word == "reg" {
                format!("reg {what}{}", many(rest))
            } else {
                format!("ram{}{}", many(what), bytes(rest))
            }
        }
        "st" => format!("st {}", canonical(rest)),
        "user" => format!("user {}", canonical(rest)),
        _ if rest.is_empty() => word.to_owned(),
        _ => format!("{word}{}", many(rest)),
    }
}

/// `KIND/KEYS,...`: the kinds of maps.
fn map(text: &str) -> (u8, u8) {
    let (kind, keys) = text.split_once('/').unwrap_or((text, "0"));
    let kinds = ["count", "sum", "min", "max", "avg", "log2"];
    let kind = kinds.iter().position(|known| *known == kind).expect("a kind of map");
    (kind as u8, number(keys) as u8)
}
