//! Texts made to exhaust time, memory or the stack: each ends, soon, with an error that says what is wrong.

use rpn_asm::{Options, assemble, disassemble, format};

/// What is said of a text, on a stack of 1 MiB.
fn say(text: String) -> String {
    std::thread::Builder::new()
        .stack_size(1 << 20)
        .spawn(move || assemble("t.rpn", &text, &Options::default()).unwrap_err().to_string())
        .unwrap()
        .join()
        .unwrap()
}

#[track_caller]
fn said(text: String, part: &str) {
    let said = say(text);
    assert!(said.contains(part), "{said}");
    // A message is for people to read.
    assert!(said.len() < 50_000, "{}", said.len());
}

fn numbered(n: usize, line: impl Fn(usize) -> String) -> String {
    (0..n).map(line).collect()
}

#[test]
fn nesting() {
    let open = |what: &str, close: &str| format!("{}1{}", what.repeat(5000), close.repeat(5000));
    said(format!("#if {}\n#endif\n", open("(", ")")), "nested too deeply");
    said(format!("#if {}\n#endif\n", open("!", "")), "nested too deeply");
    said(format!("#if {}\n#endif\n", open("1 ? ", " : 0")), "nested too deeply");
    said(format!("#define F(x) x\n{}\n", open("F(", ")")), "nested too deeply");
    said(
        numbered(5000, |i| format!("#define M{i} M{}\n", i + 1)) + "M0\n",
        "nested too deeply",
    );
}

#[test]
fn growth() {
    let doubling = numbered(60, |i| format!("#define M{i} M{} M{0}\n", i + 1));
    said(doubling + "M0\n", "expand to more than 1048576 tokens");
    let empty = numbered(60, |i| format!("#define M{i} M{} M{0}\n", i + 1)) + "#define M60\n";
    said(empty + "M0\n", "expand to more than 1048576 tokens");
    let pasting = numbered(60, |i| format!("#define M{} TWICE(M{i})\n", i + 1));
    let paste = "#define M0 aaaa\n#define PASTE(x, y) x ## y\n#define TWICE(x) PASTE(x, x)\n";
    said(format!("{paste}{pasting}M60\n"), "a token of more than 65536 bytes");
    let quoting = format!(
        "#define S(x) #x\n#define T(x) S(x)\n{}\"\"{}\n",
        "T(".repeat(60),
        ")".repeat(60)
    );
    said(quoting, "a token of more than 65536 bytes");
}

#[test]
fn length() {
    said("x".repeat(1 << 20), "unknown instruction");
    said("x;".repeat(1 << 16), "... and 950 more");
    said(
        "\"".repeat((1 << 20) + 1),
        "expected an item, an instruction or a label",
    );
    said("#if 1\n".repeat(10_000), "is not closed");
    said(format!("#define F(x) x\n{}", "F(\n".repeat(10_000)), "are not closed");
    said(" ".repeat((16 << 20) + 1), "larger than 16777216 bytes");
    let head = "name = \"k\"\nmodtype = kernel\nmajor = 1\n";
    said(
        format!(
            "{head}vars = {}z\noffset = f\nminor = 1\nexit\n",
            numbered(20_000, |i| format!("v{i}, "))
        ),
        "20001 variables are too many",
    );
    let labels = numbered(5000, |i| format!("l{i}: jz x{i}\n"));
    said(
        format!("{head}offset = f\nminor = 1\n{labels}exit\n"),
        "unknown label `x0`",
    );
    let code = numbered(120_000, |i| format!("push {i}\n"));
    said(
        format!("{head}offset = f\nminor = 1\n{code}exit\n"),
        "more than the limit, 1048576",
    );
}

#[test]
fn many_probes_are_no_problem() {
    let probes = numbered(20_000, |i| format!("offset = f{i} + {i}\nminor = 1\nexit\n"));
    let text = format!("name = \"k\"\nmodtype = kernel\nmajor = 1\n{probes}");
    let assembled = assemble("t.rpn", &text, &Options::default()).unwrap();
    assert_eq!(
        dprobes::rpn::object::Object::parse(&assembled.object)
            .unwrap()
            .points()
            .len(),
        20_000
    );
    assembled.verify().unwrap();
}

const HEAD: &str = "name = \"k\"\nmodtype = kernel\nmajor = 1\n";
const PROBE: &str = "offset = f\nminor = 1\n";

#[test]
fn many_declarations() {
    let maps = numbered(100_000, |i| format!("map m{i} = count\n"));
    said(format!("{HEAD}{maps}{PROBE}exit\n"), "a program has at most 64 maps");
    let options = ", keys = 1".repeat(100_000);
    said(
        format!("{HEAD}map m = sum{options}\n{PROBE}exit\n"),
        "`keys` is given twice",
    );
    let globals = numbered(20_000, |i| format!("g{i}, "));
    said(
        format!("{HEAD}globals = {globals}z\n{PROBE}exit\n"),
        "20001 variables are too many",
    );
    let probes = numbered(30_000, |i| format!("offset = f{i}\nminor = 1\ngroup = {i}\nexit\n"));
    let suspends = "suspend 40000\n".repeat(5000);
    said(format!("{HEAD}{probes}{PROBE}{suspends}exit\n"), "and 29990 more");
    let disagree = numbered(30_000, |i| {
        format!("offset = f{i}\nminor = 1\nsuspended = {}\nexit\n", ["yes", "no"][i % 2])
    });
    said(format!("{HEAD}{disagree}"), "disagree about `suspended`");
    said(
        format!("{HEAD}map {} = count\n{PROBE}exit\n", "m".repeat(1 << 20)),
        "is not a printable name",
    );
    said(
        format!("{HEAD}{PROBE}push \"{}\"\nexit\n", "s".repeat(1 << 20)),
        "is not a printable name",
    );
}

#[test]
fn many_symbols_are_no_problem() {
    // And as many macros that they could be mistaken for.
    let macros = numbered(20_000, |i| format!("#define MACRO{i} 1\n"));
    let code = (0..5).map(|probe| {
        let pushes = numbered(5000, |i| format!("push symbol{} + {i}\nros 1\n", probe * 5000 + i));
        format!("{PROBE}{pushes}exit\n")
    });
    let text = format!("{macros}{HEAD}{}", code.collect::<String>());
    let assembled = assemble("t.rpn", &text, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let again = disassemble(&assembled.object).unwrap();
    assert!(again.contains("push    symbol24999 + 0x1387"));
}

#[test]
fn the_formatter_takes_any_text() {
    for text in [
        "(".repeat(1 << 17),
        "f(".repeat(1 << 16),
        format!("push {}1{}", "(".repeat(1 << 15), ")".repeat(1 << 15)),
        format!("push {}1{}", "f(".repeat(1 << 15), ")".repeat(1 << 15)),
        ";".repeat(1 << 17),
        "a:".repeat(1 << 16),
        "nop;".repeat(1 << 15),
        "push 1 ? ".repeat(1 << 14),
        "- ".repeat(1 << 16),
        "/*".repeat(1 << 17),
        "/**/".repeat(1 << 15),
        "\\\n".repeat(1 << 16),
        "\"".repeat((1 << 17) + 1),
        "\n".repeat(1 << 17),
        "\t".repeat(1 << 17) + "exit",
        "\u{feff}exit\0\r\n\u{2028}".repeat(1 << 13),
        numbered(1 << 13, |i| format!("x{i} = {i} // {i}\n")),
    ] {
        let once = format(&text);
        let words = |t: &str| t.chars().filter(|c| !c.is_whitespace()).count();
        assert_eq!(words(&once), words(&text));
        assert!(format(&once) == once);
    }
}
