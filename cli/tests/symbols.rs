//! Symbols in expressions, with made-up lists of symbols.

use std::process::Command;

use pretty_assertions::assert_eq;

const LIST: &str = "\
ffffffff81200000 T do_sys_openat2
ffffffff81200090 t before_one
ffffffff81200100 t helper
ffffffff81200200 t before_two
ffffffff81200300 t helper
ffffffff81200400 T _etext
ffffffff82000000 D jiffies
ffffffff82000008 D init_task
ffffffff82000010 d table
ffffffff82000020 d table
ffffffffc0000000 t ext4_open\t[ext4]
ffffffffc0001000 d ext4_table\t[ext4]
ffffffffc0002000 d jiffies\t[other]
";

/// Exit code, standard output and standard error of a command about a program with these instructions.
fn dprobes(args: &[&str], head: &str, code: &str) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let program = format!(
        "{head}\nmajor   = 1\nvars    = opens\n#define SIZE 16\noffset  = 0\nminor   = 1\n        inc     lv, opens\n{code}        exit\n"
    );
    std::fs::write(folder.path().join("p.rpn"), program).unwrap();
    std::fs::write(folder.path().join("list"), LIST).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_dprobes"))
        .current_dir(folder.path())
        .env("LC_ALL", "C")
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const KERNEL: &str = "name    = \"kernel\"\nmodtype = kernel";
const CHECK: [&str; 4] = ["check", "p.rpn", "--symbols", "list"];

#[track_caller]
fn refused(head: &str, code: &str, expected: &str) {
    let (status, _, stderr) = dprobes(&CHECK, head, code);
    assert_eq!(stderr.trim_end(), expected.trim());
    assert_eq!(status, Some(1));
}

#[test]
fn symbols_are_listed_and_resolved() {
    let code = "        push    jiffies\n        push    init_task + 8\n        push    jiffies - 1\n        push    do_sys_openat2\n";
    let (status, stdout, stderr) = dprobes(&["check", "p.rpn"], KERNEL, code);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert!(
        stdout.contains("takes the addresses of these symbols: jiffies, init_task, do_sys_openat2\n"),
        "{stdout}"
    );
    let (status, _, stderr) = dprobes(&CHECK, KERNEL, code);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let (status, stdout, _) = dprobes(&["check", "p.rpn", "--json"], KERNEL, code);
    assert_eq!(status, Some(0));
    assert!(
        stdout.contains(r#""symbols":["jiffies","init_task","do_sys_openat2"]"#),
        "{stdout}"
    );
}

#[test]
fn the_text_of_an_object_has_its_symbols() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_dprobes"))
            .current_dir(folder.path())
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = "name=\"kernel\"\nmodtype=kernel\nmajor=1\nmap m=log2,keys=1\nglobals=g\noffset=f\nminor=1\ngroup=3\nsuspended=yes\n\
        push jiffies+8\npush 1\ncopy tsp,0\nagg m\nresume 3\ninc gv,g\nexit_to trace\n";
    std::fs::write(folder.path().join("p.rpn"), text).unwrap();
    run(&["asm", "p.rpn", "-o", "p.dpo"]);
    let text = run(&["disasm", "p.dpo"]);
    for line in [
        "push    jiffies + 0x8",
        "copy    tsp, 0",
        "agg     m",
        "resume  3",
        "inc     gv, g",
        "exit_to trace",
        "map m",
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
    std::fs::write(folder.path().join("again.rpn"), text).unwrap();
    run(&["asm", "again.rpn", "-o", "again.dpo"]);
    let read = |name| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("p.dpo"), read("again.dpo"));
}

#[test]
fn a_name_that_is_no_symbol_is_explained() {
    refused(
        KERNEL,
        "        push    jifies\n        push    SIZES + 1\n",
        r#"
warning: `SIZES` is taken for a symbol
  --> p.rpn:10:17
   |
10 |         push    SIZES + 1
   |                 ^^^^^ its address is found out when the program is inserted
   |
   = help: a symbol in quotes is one without doubt: `"SIZES"`
help: if it is not a symbol, perhaps this was meant
   |
10 -         push    SIZES + 1
10 +         push    SIZE + 1
   |

1 warning
error: the kernel has no symbol jifies
 --> p.rpn:9:9
  |
9 |         push    jifies
  |         ^^^^^^^^^^^^^^
  |
  = help: is one of these meant? jiffies
  = help: if jifies is meant to be a constant: `#define jifies VALUE`, or `-D jifies=VALUE` on the command line

error: the kernel has no symbol SIZES
  --> p.rpn:10:9
   |
10 |         push    SIZES + 1
   |         ^^^^^^^^^^^^^^^^^
   |
   = help: if it is not meant to be a symbol: the program knows a similar name, SIZE
   = help: if SIZES is meant to be a constant: `#define SIZES VALUE`, or `-D SIZES=VALUE` on the command line
"#,
    );
}

#[test]
fn several_symbols_of_one_name_are_listed() {
    refused(
        KERNEL,
        "        push    helper + 4\n        push    table\n",
        r#"
error: the kernel has 2 symbols with the name helper
 --> p.rpn:9:9
  |
9 |         push    helper + 4
  |         ^^^^^^^^^^^^^^^^^^
  |
  = note: one is at 0xffffffff81200100, after before_one
  = note: one is at 0xffffffff81200300, after before_two
  = help: say which by its address: `push 0x...`; it holds until the next boot

error: the kernel has 2 symbols with the name table
  --> p.rpn:10:9
   |
10 |         push    table
   |         ^^^^^^^^^^^^^
   |
   = note: one is at 0xffffffff82000010
   = note: one is at 0xffffffff82000020
   = help: say which by its address: `push 0x...`; it holds until the next boot
"#,
    );
}

#[test]
fn a_module_sees_its_own_symbols_and_the_kernels() {
    let head = |name: &str| format!("name    = \"{name}\"\nmodtype = kmod");
    let code = "        push    ext4_table\n        push    jiffies\n";
    assert_eq!(dprobes(&CHECK, &head("ext4"), code).0, Some(0));
    refused(
        &head("ext4"),
        "        push    helper\n",
        r#"
error: the kernel has 2 symbols with the name helper
 --> p.rpn:9:9
  |
9 |         push    helper
  |         ^^^^^^^^^^^^^^
  |
  = note: one is at 0xffffffff81200100, after before_one
  = note: one is at 0xffffffff81200300, after before_two
  = help: say which by its address: `push 0x...`; it holds until the next boot
"#,
    );
    refused(
        KERNEL,
        "        push    ext4_table\n",
        r#"
error: the kernel has no symbol ext4_table
 --> p.rpn:9:9
  |
9 |         push    ext4_table
  |         ^^^^^^^^^^^^^^^^^^
  |
  = note: module ext4 has it, but a program can only name symbols of the kernel and of the module it is for
  = help: if ext4_table is meant to be a constant: `#define ext4_table VALUE`, or `-D ext4_table=VALUE` on the command line
"#,
    );
    refused(
        "name    = \"/bin/sh\"\nmodtype = user",
        "        push    environ\n",
        r#"
error: a list of the kernel's symbols does not have those of a file: environ
 --> p.rpn:9:9
  |
9 |         push    environ
  |         ^^^^^^^^^^^^^^^
  |
  = note: the program is for user space
  = help: `dprobes insert` looks for it in the file and in its debug file
"#,
    );
}
