//! The syntax file of Vim and Neovim.

use crate::grammar::{constants, directives, is_control, items, map_kinds, map_options, mnemonics};
use dprobes::rpn::exception;
use dprobes::rpn::op::{Op, facility};
use dprobes::rpn::reg::Reg;
use std::fmt::Write;

/// Words in Vim's regular expressions.
fn any_of<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    let mut all: Vec<String> = Vec::new();
    for word in words {
        if !all.iter().any(|w| w == word.as_ref()) {
            all.push(word.as_ref().to_owned());
        }
    }
    format!(r"\<\%({}\)\>", all.join(r"\|"))
}

pub fn syntax() -> String {
    let mut out = String::from(
        "\" Vim syntax file. Language: DProbes probe programs.\n\" Made from the tables of the language by the tests of rpn-asm.\n",
    );
    out.push_str("if exists('b:current_syntax')\n  finish\nendif\n\nsyntax case match\n");
    out.push_str("syntax iskeyword @,48-57,_\n");
    let mut rule = |text: String| writeln!(out, "syntax {text}").unwrap();
    let selectors = Op::ALL.iter().flat_map(|op| op.info().selectors.iter().copied());
    let (control, other): (Vec<_>, Vec<_>) = mnemonics().into_iter().partition(|m| is_control(m));
    // What is later in the file has precedence where both begin in the same place.
    rule(format!(
        "match dprobesSelector /{}/ contained",
        any_of(selectors.chain(["procid"]))
    ));
    rule(format!(
        "match dprobesRegister /{}/ contained",
        any_of(Reg::ALL.iter().map(|r| r.name()))
    ));
    rule(format!(
        "match dprobesFacility /{}/ contained",
        any_of(facility::NAMES.iter().map(|(n, _)| *n))
    ));
    rule(format!(
        "match dprobesException /{}/",
        any_of(exception::CODES.iter().map(|(n, _)| *n))
    ));
    rule(format!("match dprobesConstant /{}/ contained", any_of(constants())));
    rule(format!("match dprobesMapKind /{}/ contained", any_of(map_kinds())));
    rule(format!(
        r"match dprobesMapOption /{}\ze\s*=/ contained",
        any_of(map_options())
    ));
    rule(r"match dprobesNumber /\<\d\w*\>/".into());
    rule(r"match dprobesLabel /^\s*\zs\h\w*\ze\s*:/".into());
    let operands = "dprobesSelector,dprobesRegister,dprobesFacility,dprobesException,dprobesNumber,dprobesString,dprobesCharacter,dprobesComment";
    rule(format!(
        r"region dprobesInstruction matchgroup=dprobesMnemonic start=/{}\%(\s*[=:]\)\@!/ skip=/\\$/ end=/$/ end=/;/me=e-1 contains={operands} oneline keepend",
        any_of(other)
    ));
    rule(format!(
        r"region dprobesInstruction matchgroup=dprobesControl start=/{}\%(\s*[=:]\)\@!/ skip=/\\$/ end=/$/ end=/;/me=e-1 contains={operands} oneline keepend",
        any_of(control)
    ));
    let values = "dprobesConstant,dprobesException,dprobesNumber,dprobesString,dprobesCharacter,dprobesComment";
    rule(format!(
        r"region dprobesValue matchgroup=dprobesItem start=/{}\ze\s*=/ skip=/\\$/ end=/$/ end=/;/me=e-1 contains={values} oneline keepend",
        any_of(items())
    ));
    rule(format!(
        r"region dprobesMap matchgroup=dprobesItem start=/\<map\>\ze\s\+\S\+\s*=/ skip=/\\$/ end=/$/ end=/;/me=e-1 contains={values},dprobesMapKind,dprobesMapOption oneline keepend"
    ));
    rule(format!(r"match dprobesDirective /^\s*#\s*{}/", any_of(directives())));
    rule(r#"region dprobesString start=/"/ skip=/\\./ end=/"/ end=/$/ oneline"#.into());
    rule(r"match dprobesCharacter /'\%(\\.[^']*\|[^'\\]\)'/".into());
    rule(r"region dprobesComment start=+//+ skip=+\\$+ end=+$+ keepend".into());
    rule(r"region dprobesComment start=+/\*+ end=+\*/+".into());
    for (group, like) in [
        ("Selector", "Type"),
        ("Register", "Identifier"),
        ("Facility", "Constant"),
        ("Exception", "Constant"),
        ("Constant", "Boolean"),
        ("MapKind", "Type"),
        ("MapOption", "Identifier"),
        ("Number", "Number"),
        ("Label", "Label"),
        ("Mnemonic", "Statement"),
        ("Control", "Conditional"),
        ("Item", "Keyword"),
        ("Directive", "PreProc"),
        ("String", "String"),
        ("Character", "Character"),
        ("Comment", "Comment"),
    ] {
        writeln!(out, "highlight default link dprobes{group} {like}").unwrap();
    }
    out.push_str("\nlet b:current_syntax = 'dprobes'\n");
    out
}
