//! The formatter: what it makes of text, that the meaning stays, and that twice is once.

mod common;

use common::{piece, program};
use proptest::prelude::*;
use rpn_asm::{Options, assemble, format};
use std::path::{Path, PathBuf};

/// The text, formatted, which is the same when formatted again.
#[track_caller]
fn formatted(text: &str) -> String {
    let once = format(text);
    assert_eq!(format(&once), once, "not stable:\n{text}");
    once
}

/// Where an object differs from the other's, the meaning does.
#[track_caller]
fn same_object(name: &str, text: &str, tidy: &str, options: &Options) {
    let object = |text: &str| assemble(name, text, options).map(|a| a.object).map_err(|e| e.len());
    assert_eq!(object(text), object(tidy), "{text}\n---\n{tidy}");
}

fn programs(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut all: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "rpn"))
        .collect();
    all.sort();
    assert!(!all.is_empty(), "{}", folder.display());
    all
}

#[test]
fn examples_are_formatted() {
    for path in programs("../examples") {
        let text = std::fs::read_to_string(&path).unwrap();
        pretty_assertions::assert_eq!(formatted(&text), text, "{}", path.display());
    }
}

#[test]
fn nothing_changes_but_the_layout() {
    let options = Options {
        defines: vec!["RET=0x1f".into()],
        ..Options::default()
    };
    let all = ["../examples", "../tests/programs", "tests/diagnostics"]
        .map(programs)
        .concat();
    for path in all {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.to_string_lossy();
        let words = |t: &str| t.split_whitespace().collect::<String>();
        // As it stands, and with its layout destroyed.
        let narrow: String = text.lines().map(|l| l.trim_start().to_owned() + "\n").collect();
        for text in [
            text.clone(),
            narrow,
            text.replace(", ", ",").replace(" = ", "="),
            text.replace('\n', "\r\n"),
        ] {
            let tidy = formatted(&text);
            assert_eq!(words(&text), words(&tidy), "{name}");
            same_object(&name, &text, &tidy, &options);
        }
    }
}

#[test]
fn layout() {
    for (text, tidy) in [
        ("", ""),
        ("\n\n", ""),
        ("exit", "        exit\n"),
        ("\texit   ;", "        exit;\n"),
        ("ok:abort", "ok:     abort\n"),
        ("ok :\n", "ok:\n"),
        ("unreadable:  push 1", "unreadable: push    1\n"),
        ("a:b: exit", "a: b:   exit\n"),
        ("push r,rax//x", "        push    r, rax          //x\n"),
        (
            "push 0xffffffff81000000 //  x",
            "        push    0xffffffff81000000 //  x\n",
        ),
        ("push -1", "        push    -1\n"),
        ("push - 1-2", "        push    -1 - 2\n"),
        ("push(1<<12)-1", "push(1<<12)-1\n"),
        ("push (1<<12)-1", "        push    (1<<12) - 1\n"),
        ("push 2*(1<<12)", "        push    2 * (1 << 12)\n"),
        ("push !~-1 ? 'a':1", "        push    !~-1 ? 'a' : 1\n"),
        ("push lv , x", "        push    lv, x\n"),
        ("pop sbp ,-2", "        pop     sbp, -2\n"),
        (
            "push 1 /* one */+2 /* three */ // end",
            "        push    1 /* one */ + 2 /* three */ // end\n",
        ),
        ("nop;nop ;  exit", "        nop; nop; exit\n"),
        ("ok: nop;exit", "ok: nop; exit\n"),
        ("name=\"k\" ;modtype= user", "name = \"k\"; modtype = user\n"),
        ("map  opens=log2,keys=1", "map opens = log2, keys = 1\n"),
        (
            "map a=count\nmap long=linear,min=-5,max =5",
            "map a    = count\nmap long = linear, min = -5, max = 5\n",
        ),
        (
            "name=\"k\"\nex_logmax=1\noffset=f\nlogonfault=yes",
            "name      = \"k\"\nex_logmax = 1\noffset     = f\nlogonfault = yes\n",
        ),
        ("offset=\"a.c\" : 12", "offset    = \"a.c\":12\n"),
        ("opcode=0x48,0x89", "opcode  = 0x48, 0x89\n"),
        ("LOG_IT( a,b )", "LOG_IT( a,b )\n"),
        ("  LOG_IT( a,b )", "        LOG_IT( a,b )\n"),
        ("push  F( a+b )+1", "        push    F( a+b ) + 1\n"),
        ("push F(\na+b)", "push F(\na+b)\n"),
        ("  #  define  A( x )   x  ", "#  define  A( x )   x\n"),
        ("#define A \\\n   push  1  \n", "#define A \\\n   push  1\n"),
        ("// a\n  // b\npush 1\n", "// a\n        // b\n        push    1\n"),
        ("  // b\nname = \"k\"\n", "// b\nname    = \"k\"\n"),
        (
            "nop    // a\n       // b\n   // c\nnop",
            "        nop                     // a\n                                // b\n        // c\n        nop\n",
        ),
        ("/* a\n   b */\npush  1", "/* a\n   b */\n        push    1\n"),
        ("push  1 /* a\n   b */\n", "push  1 /* a\n   b */\n"),
        ("push  \"abc\nexit", "push  \"abc\n        exit\n"),
        ("exit\n/* never\n  closed  \n", "        exit\n/* never\n  closed\n"),
        ("exit \\", "exit \\"),
        // A space behind a backslash keeps it from joining the next line.
        (
            "exit // \\ \nnop",
            "        exit                    // \\ \n        nop\n",
        ),
    ] {
        assert_eq!(formatted(text), tidy, "{text:?}");
    }
}

/// Spaces in what becomes a string are part of it.
#[test]
fn spaces_that_matter_stay() {
    let head = "name = \"kernel\"\nmodtype = kernel\nmajor = 1\n#define S(x) #x\n#define OPEN S(\n";
    for place in [
        "S(a+b)",
        "S(a + b)",
        "S( a,\tb)",
        "S(a /**/ +b)",
        "S (a+ b)",
        "OPEN a+b )",
        "S\n(a+ b)",
        "S(a\n+b)",
    ] {
        let text = format!("{head}offset={place}\nminor=1\nexit\n");
        let tidy = formatted(&text);
        same_object("t", &text, &tidy, &Options::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_keeps_its_words(text in any::<String>()) {
        let tidy = formatted(&text);
        let words = |t: &str| t.split_whitespace().collect::<String>();
        prop_assert_eq!(words(&text), words(&tidy));
    }

    /// Programs that use everything, with their white space changed.
    #[test]
    fn programs_keep_their_meaning(program in program(), spaces in prop::collection::vec(prop::sample::select(vec!["", " ", "\t", " /* */ "]), 20)) {
        let mut spaces = spaces.iter().cycle();
        let text = program.text();
        let mut wild = String::new();
        for c in text.chars() {
            match c {
                // Where a space separates two words there must be one.
                ' ' => { wild.push(' '); wild.push_str(spaces.next().unwrap()) }
                ',' | '=' | '+' => { wild.push_str(spaces.next().unwrap()); wild.push(c); wild.push_str(spaces.next().unwrap()) }
                c => wild.push(c),
            }
        }
        for text in [text, wild] {
            prop_assert!(assemble("t.rpn", &text, &Options::default()).is_ok(), "{}", text);
            same_object("t.rpn", &text, &formatted(&text), &Options::default());
        }
    }

    /// Pieces of the language in any order: what is assembled, and how many errors there are, stays.
    #[test]
    fn any_tokens_keep_their_meaning(pieces in prop::collection::vec(piece(), 0..60)) {
        let text = pieces.concat();
        let head = "name=\"k\"\nmodtype=kernel\nmajor=1\nvars=a,b\n#define S(x) #x\noffset=f\nminor=1\n";
        for text in [text.clone(), format!("{head}{text}")] {
            same_object("t.rpn", &text, &formatted(&text), &Options::default());
        }
    }
}
