//! The preprocessor against that of gcc, which somebody else wrote: the same tokens, the same truth of `#if`.

use super::{Files, IncludeError, Preprocessor};
use crate::diag::Session;
use crate::lex::{TokenKind, lex};
use crate::source::SourceMap;
use proptest::prelude::*;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The text after the C preprocessor, unless it refuses it.
fn cpp(text: &str) -> Option<String> {
    let mut child = Command::new("gcc")
        .args(["-E", "-P", "-undef", "-nostdinc", "-std=c11", "-x", "c", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs gcc");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).unwrap())
}

fn tokens(text: &str) -> Vec<String> {
    let mut map = SourceMap::default();
    let file = map.add("cpp".into(), text.into(), None);
    lex(file, text)
        .into_iter()
        .filter(|t| t.kind != TokenKind::Newline)
        .map(|t| t.text.to_string())
        .collect()
}

/// The text after our preprocessor.
fn ours_with(text: &str, files: &dyn Files, paths: &[PathBuf], defines: &[&str]) -> Result<Vec<String>, String> {
    let mut session = Session::default();
    let file = session.map.add("folder/t.rpn".into(), text.into(), None);
    let mut preprocessor = Preprocessor::new(&mut session, files, paths);
    for d in defines {
        preprocessor.define(d);
    }
    let (out, _) = preprocessor.run(file);
    if session.has_errors() {
        return Err(session.finish().to_string());
    }
    Ok(out
        .into_iter()
        .filter(|t| t.kind != TokenKind::Newline)
        .map(|t| t.text.to_string())
        .collect())
}

fn ours(text: &str) -> Result<Vec<String>, String> {
    ours_with(text, &NoFiles, &[], &[])
}

#[derive(Debug)]
struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &Path, _: usize) -> Result<Vec<u8>, IncludeError> {
        Err(IncludeError::NotFound)
    }
}

#[derive(Debug)]
struct Memory(HashMap<PathBuf, Vec<u8>>);

impl Files for Memory {
    fn read(&self, path: &Path, limit: usize) -> Result<Vec<u8>, IncludeError> {
        let bytes = self.0.get(path).ok_or(IncludeError::NotFound)?;
        if bytes.len() > limit {
            return Err(IncludeError::TooLarge);
        }
        Ok(bytes.clone())
    }
}

#[track_caller]
fn same_as_cpp(text: &str) {
    let theirs = cpp(text).unwrap_or_else(|| panic!("cpp refuses:\n{text}"));
    assert_eq!(ours(text).unwrap(), tokens(&theirs), "{text}");
}

#[test]
fn examples_of_the_c_standard() {
    // ISO/IEC 9899:2011, 6.10.3.3 and 6.10.3.5, examples 2 to 7; the parts that have one defined result.
    same_as_cpp(
        "#define hash_hash # ## #\n#define mkstr(a) # a\n#define in_between(a) mkstr(a)\n#define join(c, d) in_between(c hash_hash d)\njoin(x, y)\n",
    );
    same_as_cpp(
        "#define x 3\n#define f(a) f(x * (a))\n#undef x\n#define x 2\n#define g f\n#define z z[0]\n#define h g(~\n#define m(a) a(w)\n\
         #define w 0,1\n#define t(a) a\n#define p() int\n#define q(x) x\n#define r(x,y) x ## y\n#define str(x) # x\n\
         f(y+1) + f(f(z)) % t(t(g)(0) + t)(1);\ng(x+(3,4)-w) | h 5) & m\n(f)^m(m);\np() i[q()] = { q(1), r(2,3), r(4,), r(,5), r(,) };\n\
         char c[2][6] = { str(hello), str() };\n",
    );
    same_as_cpp(
        "#define str(s) # s\n#define xstr(s) str(s)\n#define debug(s, t) printf(\"x\" # s \"= %d, x\" # t \"= %s\", x ## s, x ## t)\n\
         #define INCFILE(n) vers ## n\n#define glue(a, b) a ## b\n#define xglue(a, b) glue(a, b)\n#define HIGHLOW \"hello\"\n\
         #define LOW LOW \", world\"\ndebug(1, 2);\nfputs(str(strncmp(\"abc\\0d\", \"abc\", '\\4') == 0) str(: 1\\n), s);\n\
         xstr(INCFILE(2).h)\nglue(HIGH, LOW);\nxglue(HIGH, LOW)\n"
            .replace(": 1\\n", ": 1")
            .as_str(),
    );
    same_as_cpp(
        "#define t(x,y,z) x ## y ## z\nint j[] = { t(1,2,3), t(,4,5), t(6,,7), t(8,9,),\nt(10,,), t(,11,), t(,,12), t(,,) };\n",
    );
    same_as_cpp(
        "#define debug(...) fprintf(stderr, __VA_ARGS__)\n#define showlist(...) puts(#__VA_ARGS__)\n#define report(test, ...) ((test)?puts(#test): printf(__VA_ARGS__))\ndebug(\"Flag\");\ndebug(\"X = %d\\n\", x);\nshowlist(The first, second, and third items.);\nreport(x>y, \"x is %d but y is %d\", x, y);\n",
    );
}

#[test]
fn lines_and_comments() {
    same_as_cpp("a // b \\\nstill comment\nc /* d\ne */ f \\\ng\n");
    same_as_cpp("#define F(a, b) a - b\nF(1,\n2) F\n(3, (4,\n5)) F\n");
    same_as_cpp("#define LONG 1 + \\\n 2\nLONG\n # define X /* c */ 5 // d\nX\n#\n");
    same_as_cpp("#if 0\n don't \"worry\n#else\n ok\n#endif\n");
    same_as_cpp("#define E\nE E E\n#define F(x) x E\nF(E) F()\n");
}

#[test]
fn conditionals() {
    let text = "#define ONE 1\n#define F(x) x\n\
        #if ONE\na\n#elif 1/0\nb\n#else\nc\n#endif\n\
        #if defined ONE && defined(F) && !defined TWO && F(2) == 2\nd\n#endif\n\
        #ifdef TWO\n#if nonsense (\n#else\n#endif\n#elif defined(TWO) || F(ONE)\ne\n#else\nf\n#endif\n\
        #ifndef TWO\ng\n#endif\n#undef ONE\n#ifdef ONE\nh\n#endif\n#if UNKNOWN\ni\n#endif\n";
    same_as_cpp(text);
    assert_eq!(ours(text).unwrap(), ["a", "d", "e", "g"]);
}

#[test]
fn built_in_names() {
    let text = "__LINE__ __FILE__ __COUNTER__ __COUNTER__\n#define L __LINE__\n\nL\n#ifdef __LINE__\nyes\n#endif\n";
    assert_eq!(ours(text).unwrap(), ["1", "\"folder/t.rpn\"", "0", "1", "4", "yes"]);
}

#[test]
fn definitions_of_the_command_line() {
    let files = NoFiles;
    let got = ours_with("A B C F(2) D", &files, &[], &["A", "B=2", "C=", "F(x)=x+1", "D=a=b"]);
    assert_eq!(got.unwrap(), ["1", "2", "2", "+", "1", "a", "=", "b"]);
    for bad in ["", "=", "1", "a b", "a\nb=1", "a=1\nb", "a.b"] {
        assert!(ours_with("", &files, &[], &[bad]).is_err(), "{bad:?}");
    }
}

#[test]
fn files_are_found_beside_and_then_in_the_paths() {
    let files = [
        ("folder/a.h", "beside\n#include \"sub/b.h\"\n"),
        ("folder/sub/b.h", "sub\n#include \"c.h\"\n#include <a.h>\n"),
        ("first/c.h", "first"),
        ("second/c.h", "second"),
        ("second/a.h", "system"),
    ];
    let files = Memory(files.map(|(p, t)| (p.into(), t.as_bytes().to_vec())).into());
    let paths = ["first".into(), "second".into()];
    let text = "#define NAME \"a.h\"\n#include NAME\n#define SYS <a.h>\n#include <c.h>\n";
    let got = ours_with(text, &files, &paths, &[]);
    assert_eq!(got.unwrap(), ["beside", "sub", "first", "system", "first"]);
}

#[test]
fn files_that_cannot_be_used() {
    let files = Memory(
        [
            (PathBuf::from("folder/binary"), b"ok\n\xff".to_vec()),
            (PathBuf::from("folder/huge"), vec![b' '; super::TEXT_LIMIT + 1]),
        ]
        .into(),
    );
    let say = |text| ours_with(text, &files, &[], &[]).unwrap_err();
    assert!(say("#include \"binary\"\n").contains("the first wrong byte is in line 2"));
    assert!(say("#include \"huge\"\n").contains("larger than"));
    let devices = ours_with("#include \"/dev/zero\"\n", &super::SystemFiles, &[], &[]);
    assert!(devices.unwrap_err().contains("not a regular file"));
}

/// A constant expression that C defines: no overflow of signed numbers that C leaves undefined is kept out below.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<u64>().prop_map(|n| n.to_string()),
        any::<u32>().prop_map(|n| format!("{n:#x}")),
        (0u64..70).prop_map(|n| n.to_string()),
        any::<u16>().prop_map(|n| format!("0{n:o}")),
        any::<u16>().prop_map(|n| format!("{n}u")),
        proptest::char::range(' ', '~').prop_map(|c| match c {
            '\'' | '\\' => format!("'\\{c}'"),
            c => format!("'{c}'"),
        }),
        Just("'\\xff'".to_owned()),
        Just("UNKNOWN".to_owned()),
    ];
    let binary = prop::sample::select(vec![
        "+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "<", "<=", ">", ">=", "==", "!=", "&&", "||",
    ]);
    leaf.prop_recursive(5, 40, 3, move |inner| {
        prop_oneof![
            (inner.clone(), binary.clone(), inner.clone()).prop_map(|(a, o, b)| format!("{a} {o} {b}")),
            (prop::sample::select(vec!["-", "+", "!", "~"]), inner.clone()).prop_map(|(o, a)| format!("{o} {a}")),
            inner.clone().prop_map(|a| format!("({a})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

/// What the expression is worth for us: its bits and whether it is unsigned.
fn value(text: &str) -> Option<(u64, bool)> {
    use crate::expression::{Meaning, parse_all};
    let mut session = Session::default();
    let file = session.map.add("e".into(), text.into(), None);
    let tokens = lex(file, text);
    let (end, tokens) = tokens.split_last()?;
    let mut cursor = crate::cursor::Cursor::new(tokens, end.span);
    let zero = crate::value::Value::signed(0);
    let term = parse_all(&mut cursor, &mut session, &mut |_| Meaning::Value(zero)).ok()?;
    Some((term.value.bits, term.value.unsigned))
}

#[test]
fn expressions_have_the_values_of_c() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let strategy = expression();
    let mut text = String::new();
    let mut count = 0;
    while count < 5000 {
        let e = strategy.new_tree(&mut runner).unwrap().current();
        let Some((bits, unsigned)) = value(&e) else {
            continue;
        };
        // Equal bits, and equal signedness: -1 becomes a large number beside an unsigned one.
        let sign = if unsigned { ">" } else { "<" };
        text += &format!("#if ({e}) - {bits}u == 0 && (0 ? ({e}) : -1) {sign} 0\n#else\n{count}: {e}\n#endif\n");
        count += 1;
    }
    // cpp remarks on overflow, and on what it does not evaluate; what it computes is defined all the same.
    let mut child = Command::new("gcc")
        .args(["-E", "-P", "-undef", "-nostdinc", "-std=gnu11", "-w", "-x", "c", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs gcc");
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let different = String::from_utf8_lossy(&output.stdout);
    let refused = String::from_utf8_lossy(&output.stderr);
    assert_eq!((different.trim(), refused.trim()), ("", ""));
}

/// A text of macros and their uses. A function-like macro is always followed by its arguments: whether a macro expands whose
/// arguments only come after its expansion C leaves open.
fn program() -> impl Strategy<Value = String> {
    let objects = ["A", "B", "C"];
    let functions = ["F", "G"];
    let atom = prop_oneof![
        4 => prop::sample::select(vec!["1", "x", "y", "+", "-", "z", "*", "\"s\"", "'c'", "<<"]).prop_map(str::to_owned),
        4 => prop::sample::select(objects.to_vec()).prop_map(str::to_owned),
    ];
    let term = atom.clone().prop_recursive(2, 8, 3, move |inner| {
        let some = prop::collection::vec(inner, 0..3).prop_map(|v| v.join(" "));
        prop_oneof![
            (prop::sample::select(functions.to_vec()), some.clone(), some.clone())
                .prop_map(|(f, a, b)| format!("{f}({a}, {b})")),
            some.prop_map(|a| format!("({a})")),
        ]
    });
    let terms = prop::collection::vec(term.clone(), 0..4).prop_map(|v| v.join(" "));
    let body = prop::collection::vec(
        prop_oneof![
            6 => term,
            1 => Just("x ## y".to_owned()),
            1 => Just("#x".to_owned()),
            1 => Just("A ## x".to_owned()),
            1 => Just("x ## 1 ## y".to_owned()),
        ],
        0..4,
    )
    .prop_map(|v| v.join(" "));
    let object = terms.clone();
    (
        object.clone(),
        object.clone(),
        object,
        body.clone(),
        body,
        prop::collection::vec(terms, 1..5),
    )
        .prop_map(|(a, b, c, f, g, uses)| {
            let uses = uses.join("\n");
            format!("#define A {a}\n#define B {b}\n#define C {c}\n#define F(x, y) {f}\n#define G(x, y) {g}\n{uses}\n")
        })
}

#[test]
fn random_macros_expand_as_in_c() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let strategy = program();
    let (mut compared, mut refused) = (0, 0);
    while compared < 250 {
        let text = strategy.new_tree(&mut runner).unwrap().current();
        match (cpp(&text), ours(&text)) {
            (Some(theirs), Ok(mine)) => {
                // Whether a macro that expands to nothing leaves a space in a string C does not say.
                let joined = |all: Vec<String>| all.into_iter().map(|t| t.replace(' ', "")).collect::<Vec<_>>();
                assert_eq!(joined(mine), joined(tokens(&theirs)), "{text}");
                compared += 1;
            }
            // Both refuse it: a `##` that makes no token, or the wrong number of arguments.
            (None, Err(_)) => refused += 1,
            // We have a limit.
            (Some(theirs), Err(e)) if theirs.len() > 100_000 && e.contains("macros expand to more than") => {
                refused += 1
            }
            (theirs, mine) => panic!("{text}\ncpp: {theirs:?}\nours: {mine:?}"),
        }
        assert!(refused < 2000, "hardly anything could be compared");
    }
}
