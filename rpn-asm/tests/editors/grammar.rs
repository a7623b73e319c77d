//! The TextMate grammar.

use dprobes::rpn::exception;
use dprobes::rpn::op::{Flow, Op, Operand, facility};
use dprobes::rpn::reg::Reg;
use rpn_asm::{Options, assemble};
use serde_json::{Value, json};

/// A name as the language has it.
const NAME: &str = r"[.]?[A-Za-z_](?:[.$]?\w)*";

/// Where a line ends that the next one does not continue.
const END: &str = r"(?<!\\)$";

/// Everything that belongs to an operand or a value.
const EXPRESSION: &str = "#expression";

/// The items of header and probes, as the assembler lists them, but for `map`, which is written in another way.
pub fn items() -> Vec<String> {
    let said = assemble("t", "no_item_at_all = 1", &Options::default())
        .unwrap_err()
        .to_string();
    let lists = said.lines().filter(|l| l.contains("= note: items of"));
    let words = lists.flat_map(|l| l.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    words.filter(|w| w != "map").collect()
}

/// The words that the assembler expects in a place: those in back quotes of its message about this text.
fn expected(text: &str) -> Vec<String> {
    let said = assemble("t", text, &Options::default()).unwrap_err().to_string();
    let label = said
        .lines()
        .find_map(|l| l.split_once("^ expected "))
        .unwrap_or_else(|| panic!("{said}"))
        .1;
    label.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

pub fn map_kinds() -> Vec<String> {
    expected("map a = 0")
}

pub fn map_options() -> Vec<String> {
    expected("map a = linear, 0")
}

pub fn constants() -> Vec<String> {
    let mut all = expected("modtype = 0");
    all.extend(expected("logonfault = 0"));
    all.extend(expected(
        "name = \"m\"; modtype = user; major = 1; offset = 1; watch = 0",
    ));
    all
}

pub fn directives() -> Vec<String> {
    let said = assemble("t", "#nonsense", &Options::default()).unwrap_err().to_string();
    said.split('`')
        .filter_map(|w| w.strip_prefix('#'))
        .filter(|w| *w != "nonsense")
        .map(str::to_owned)
        .collect()
}

/// Any of these words; longer ones first, so that none hides another.
pub fn any_of<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    let mut all: Vec<String> = words.into_iter().map(|w| w.as_ref().to_owned()).collect();
    all.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
    all.dedup();
    format!("(?:{})", all.join("|"))
}

/// Every mnemonic once, in the order of the table.
pub fn mnemonics() -> Vec<&'static str> {
    let mut all: Vec<&str> = Vec::new();
    for op in Op::ALL {
        if !all.contains(&op.info().mnemonic) {
            all.push(op.info().mnemonic);
        }
    }
    all
}

/// The selectors in one place of a mnemonic's instructions.
fn selectors(mnemonic: &str, at: usize) -> Vec<&'static str> {
    let mut all: Vec<_> = Op::with_mnemonic(mnemonic)
        .filter_map(|op| op.info().selectors.get(at).copied())
        .collect();
    if mnemonic == "push" && at == 0 {
        all.push("procid");
    }
    all
}

pub fn is_control(mnemonic: &str) -> bool {
    Op::with_mnemonic(mnemonic).any(|op| !matches!(op.info().flow, Flow::Next | Flow::Handler))
}

fn captures(scopes: &[&str]) -> Value {
    let named = scopes.iter().enumerate().filter(|(_, s)| !s.is_empty());
    named
        .map(|(n, scope)| ((n + 1).to_string(), json!({ "name": format!("{scope}.dprobes") })))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn token(name: &str, regex: &str) -> Value {
    json!({ "name": format!("{name}.dprobes"), "match": regex })
}

fn includes(names: &[&str]) -> Value {
    names.iter().map(|n| json!({ "include": n })).collect()
}

/// An instruction: its mnemonic and selectors, then operands up to the end of the statement.
fn instruction(mnemonic: &str) -> Value {
    let mut begin = format!(r"(?<![\w.$])({mnemonic})(?![\w.$])(?!\s*[=:])");
    let mut scopes = vec![if is_control(mnemonic) {
        "keyword.control"
    } else {
        "keyword.mnemonic"
    }];
    let (first, second) = (selectors(mnemonic, 0), selectors(mnemonic, 1));
    if !first.is_empty() {
        let mut more = String::new();
        scopes.push("storage.type.selector");
        if !second.is_empty() {
            more = format!(r"(?:\s*(,)\s*({})(?![\w.$]))?", any_of(second));
            scopes.extend(["punctuation.separator", "storage.type.selector"]);
        }
        begin.push_str(&format!(r"(?:\s+({})(?![\w.$]){more})?", any_of(first)));
    }
    let operand = |kind| Op::with_mnemonic(mnemonic).any(|op| op.info().operand == kind);
    let patterns = if operand(Operand::Branch) {
        includes(&["#comment", "#label-use", EXPRESSION])
    } else if operand(Operand::Facility) {
        includes(&["#comment", "#facility", EXPRESSION])
    } else if operand(Operand::Reg) {
        includes(&["#comment", "#register", EXPRESSION])
    } else {
        includes(&["#comment", EXPRESSION])
    };
    json!({
        "name": "meta.instruction.dprobes",
        "begin": begin,
        "beginCaptures": captures(&scopes),
        "end": format!("{END}|(?=;)|(?=//)"),
        "patterns": patterns,
    })
}

pub fn grammar() -> Value {
    let words = |w: String| format!(r"(?<![\w.$]){w}(?![\w.$])");
    json!({
        "$schema": "https://raw.githubusercontent.com/martinring/tmlanguage/master/tmlanguage.json",
        "name": "DProbes",
        "scopeName": "source.dprobes",
        "fileTypes": ["rpn"],
        "patterns": includes(&["#comment", "#preprocessor", "#statement"]),
        "repository": {
            "comment": { "patterns": [
                {
                    "name": "comment.line.double-slash.dprobes",
                    "begin": "(//)",
                    "beginCaptures": captures(&["punctuation.definition.comment"]),
                    "end": END,
                },
                {
                    "name": "comment.block.dprobes",
                    "begin": r"(/\*)",
                    "beginCaptures": captures(&["punctuation.definition.comment"]),
                    "end": r"(\*/)",
                    "endCaptures": captures(&["punctuation.definition.comment"]),
                },
            ]},
            "preprocessor": { "patterns": [
                {
                    "name": "meta.preprocessor.dprobes",
                    "begin": format!(r"^\s*(#)\s*(define|undef)\s+({NAME})"),
                    "beginCaptures": captures(&[
                        "punctuation.definition.directive", "keyword.control.directive", "entity.name.function.preprocessor",
                    ]),
                    "end": END,
                    "patterns": includes(&["#comment", "#statement"]),
                },
                {
                    "name": "meta.preprocessor.dprobes",
                    "begin": r"^\s*(#)\s*(include)(?!\w)",
                    "beginCaptures": captures(&["punctuation.definition.directive", "keyword.control.directive"]),
                    "end": END,
                    "patterns": [
                        { "include": "#comment" },
                        token("string.quoted.other.lt-gt.include", "<[^>]*>"),
                        { "include": EXPRESSION },
                    ],
                },
                {
                    "name": "meta.preprocessor.dprobes",
                    "begin": r"^\s*(#)\s*(error|warning)(?!\w)",
                    "beginCaptures": captures(&["punctuation.definition.directive", "keyword.control.directive"]),
                    "end": END,
                    "patterns": [{ "include": "#comment" }, token("string.unquoted", r"[^\s/]+|/(?![/*])")],
                },
                {
                    "name": "meta.preprocessor.dprobes",
                    "begin": format!(r"^\s*(#)\s*({})(?!\w)", any_of(directives())),
                    "beginCaptures": captures(&["punctuation.definition.directive", "keyword.control.directive"]),
                    "end": END,
                    "patterns": [
                        { "include": "#comment" },
                        token("keyword.control.directive", &words("defined".into())),
                        { "include": EXPRESSION },
                    ],
                },
                token("punctuation.definition.directive", r"^\s*#"),
            ]},
            "statement": { "patterns": [
                { "include": "#map" },
                { "include": "#item" },
                { "include": "#instruction" },
                {
                    "match": format!(r"({NAME})\s*(:)"),
                    "captures": captures(&["entity.name.label", "punctuation.separator.label"]),
                },
                token("punctuation.terminator.statement", ";"),
                { "include": EXPRESSION },
            ]},
            "map": {
                "name": "meta.map.dprobes",
                "begin": format!(r#"(?<![\w.$])(map)\s+({NAME}|"[^"]*")\s*(=)"#),
                "beginCaptures": captures(&["storage.type.map", "entity.name.type.map", "keyword.operator.assignment"]),
                "end": format!("{END}|(?=;)|(?=//)"),
                "patterns": [
                    { "include": "#comment" },
                    token("variable.parameter.option", &(words(any_of(map_options())) + r"(?=\s*=)")),
                    token("support.type.map-kind", &words(any_of(map_kinds()))),
                    { "include": EXPRESSION },
                ],
            },
            "item": {
                "name": "meta.item.dprobes",
                "begin": format!(r"(?<![\w.$])({})\s*(=)(?!=)", any_of(items())),
                "beginCaptures": captures(&["support.type.property-name", "keyword.operator.assignment"]),
                "end": format!("{END}|(?=;)|(?=//)"),
                "patterns": [
                    { "include": "#comment" },
                    token("constant.language", &words(any_of(constants()))),
                    { "include": EXPRESSION },
                ],
            },
            "instruction": { "patterns": mnemonics().into_iter().map(instruction).collect::<Vec<_>>() },
            "label-use": token("variable.other.label", &format!(r"{NAME}(?!\s*\()")),
            "facility": token("support.constant.facility", &words(any_of(facility::NAMES.iter().map(|(n, _)| n)))),
            "register": token("variable.language.register", &words(any_of(Reg::ALL.iter().map(|r| r.name())))),
            "expression": { "patterns": [
                {
                    "name": "string.quoted.double.dprobes",
                    "begin": "\"",
                    "end": "\"|$",
                    "patterns": [token("constant.character.escape", r"\\(?:x[0-9A-Fa-f]*|[0-7]{1,3}|.)")],
                },
                {
                    "name": "string.quoted.single.dprobes",
                    "begin": "'",
                    "end": "'|$",
                    "patterns": [token("constant.character.escape", r"\\(?:x[0-9A-Fa-f]*|[0-7]{1,3}|.)")],
                },
                token("constant.numeric.hex", r"(?<![\w.$])0[xX][0-9A-Fa-f]+[uUlL]*(?!\w)"),
                token("constant.numeric.binary", r"(?<![\w.$])0[bB][01]+[uUlL]*(?!\w)"),
                token("constant.numeric.octal", r"(?<![\w.$])0[oO]?[0-7]+[uUlL]*(?!\w)"),
                token("constant.numeric.decimal", r"(?<![\w.$])[0-9]+[uUlL]*(?![\w.])"),
                token("invalid.illegal.number", r"(?<![\w.$])[0-9][\w.]*"),
                token("support.constant.exception", &words(any_of(exception::CODES.iter().map(|(n, _)| n)))),
                token("variable.language.predefined", &words("(?:__LINE__|__FILE__|__COUNTER__|__VA_ARGS__)".into())),
                token("entity.name.function.preprocessor", &format!(r"{NAME}(?=\s*\()")),
                token("variable.other", NAME),
                token("keyword.operator", r"\.\.\.|<<|>>|<=|>=|==|!=|&&|\|\||##|[-+*/%&|^~!<>=?:#]"),
                token("punctuation.separator", ","),
                token("punctuation.section.parens", r"[()]"),
                token("punctuation.separator.continuation", r"\\$"),
                token("invalid.illegal", r"[^\s;\\]"),
            ]},
        },
    })
}
