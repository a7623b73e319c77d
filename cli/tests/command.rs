//! The command as a process, without the module.

use std::process::Command;

use pretty_assertions::assert_eq;

const PROGRAM: &str = r#"name    = "kernel"
modtype = kernel
major   = 1
vars    = opens

offset   = do_sys_openat2
minor    = 1
max_hits = 100

        inc     lv, opens
        push    255
        push    r, rsi
        log     str
        exit
"#;

const SYMBOLS: &str = "\
ffffffff81200000 T do_sys_openat2
ffffffff81200090 t helper
ffffffff81200100 t helper
ffffffff81200200 t shorten.isra.0
ffffffff81200300 T _etext
ffffffff82000000 D jiffies
ffffffffc0000000 t ext4_open\t[ext4]
";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.put("openat.rpn", PROGRAM.as_bytes());
        folder.put("symbols", SYMBOLS.as_bytes());
        folder
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.path().join(name), bytes).unwrap();
    }

    /// A program whose only difference is the location.
    fn put_at(&self, name: &str, location: &str) {
        self.put(name, PROGRAM.replace("do_sys_openat2", location).as_bytes());
    }

    fn dprobes(&self, args: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_dprobes"))
            .current_dir(self.0.path())
            .env("LC_ALL", "C")
            .args(args)
            .output()
            .unwrap();
        Ran {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// What a command has done.
struct Ran {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Ran {
    #[track_caller]
    fn code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        self
    }

    /// Printed this, but for empty lines around it.
    #[track_caller]
    fn stdout(self, text: &str) -> Self {
        assert_eq!(str::from_utf8(&self.stdout).unwrap().trim_end(), text.trim());
        self
    }

    /// Said this, but for empty lines around it.
    #[track_caller]
    fn stderr(self, text: &str) -> Self {
        assert_eq!(self.stderr.trim_end(), text.trim());
        self
    }

    /// Said this among other things.
    #[track_caller]
    fn stderr_has(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} in\n{}", self.stderr);
        self
    }
}

const NO_MODULE: [&str; 2] = ["--device", "/dev/dprobes-that-is-not-there"];

#[test]
fn without_the_module_every_command_that_needs_it_says_so() {
    let folder = Folder::new();
    let commands: [&[&str]; 5] = [
        &["insert", "openat.rpn"],
        &["remove", "1"],
        &["remove", "--all"],
        &["query"],
        &["log"],
    ];
    for command in commands {
        folder
            .dprobes(&[command, &NO_MODULE].concat())
            .code(3)
            .stdout("")
            .stderr(
                r#"
error: the dprobes module is not loaded (no /dev/dprobes-that-is-not-there)
 |
 = help: run `insmod dprobes.ko` as root, then try again
"#,
            );
    }
}

#[test]
fn something_else_is_not_taken_for_the_device() {
    let folder = Folder::new();
    folder.dprobes(&["query", "--device", "symbols"]).code(1).stderr(
        r#"
error: symbols is not the device of DProbes
 |
 = note: the module makes a character device, normally /dev/dprobes
"#,
    );
    folder.dprobes(&["query", "--device", "/dev/null"]).code(1).stderr(
        r#"
error: /dev/null does not know the request
 |
 = note: the command speaks version 6 of the interface
 = note: the module is of another version, or this is another device
 = help: use the command that was built with the module
"#,
    );
    folder.dprobes(&["log", "--device", "/dev/null"]).code(1);
    folder.dprobes(&["log", "--device", "."]).code(1);
}

#[test]
fn a_program_is_checked() {
    let folder = Folder::new();
    folder.dprobes(&["check", "openat.rpn"]).code(0).stderr("").stdout(
        r#"
program 1 for the kernel: 1 probe, 1 local variable, 17 bytes of code
each hit may log 1024 bytes, take 65535 jumps and execute 1000000 instructions
  1.1     do_sys_openat2: 17 bytes, ends after 100 hits
"#,
    );
    folder
        .dprobes(&["check", "openat.rpn", "--kallsyms", "symbols"])
        .code(0)
        .stdout(
            r#"
program 1 for the kernel: 1 probe, 1 local variable, 17 bytes of code
each hit may log 1024 bytes, take 65535 jumps and execute 1000000 instructions
  1.1     do_sys_openat2: at 0xffffffff81200000, 17 bytes, ends after 100 hits
"#,
        );
    folder
        .dprobes(&["check", "openat.rpn", "--kallsyms", "symbols", "--json"])
        .code(0)
        .stdout(r#"
{"module":"kernel","module_type":"kernel","major":1,"locals":["opens"],"globals":[],"maps":[],"heapmax":0,"logmax":1024,"jmpmax":65535,"instructions":1000000,"code_bytes":17,"symbols":[],"probes":[{"minor":1,"location":"do_sys_openat2","address":"0xffffffff81200000","line":6,"code_bytes":17,"pass_count":0,"max_hits":100,"log_on_fault":false}]}
"#);
}

#[test]
fn an_object_is_as_good_as_its_text() {
    let folder = Folder::new();
    folder
        .dprobes(&["asm", "openat.rpn", "-o", "openat.dpo"])
        .code(0)
        .stdout("");
    folder
        .dprobes(&["check", "openat.dpo", "--kallsyms", "symbols"])
        .code(0)
        .stdout(
            r#"
program 1 for the kernel: 1 probe, 1 local variable, 17 bytes of code
each hit may log 1024 bytes, take 65535 jumps and execute 1000000 instructions
  1.1     do_sys_openat2: at 0xffffffff81200000, 17 bytes, ends after 100 hits
"#,
        );
    // Its text gives the same object again.
    let text = folder.dprobes(&["disasm", "openat.dpo"]).code(0).stdout;
    folder.put("again.rpn", &text);
    folder.dprobes(&["asm", "again.rpn", "-o", "again.dpo"]).code(0);
    let read = |name: &str| std::fs::read(folder.0.path().join(name)).unwrap();
    assert_eq!(read("openat.dpo"), read("again.dpo"));
    let printed = folder.dprobes(&["asm", "openat.rpn", "-o", "-"]).code(0).stdout;
    assert_eq!(printed, read("openat.dpo"));

    folder.dprobes(&["check", "openat.dpo", "-D", "A=1"]).code(1).stderr(
        r#"
error: openat.dpo is an object; -D and -I have no effect on it
 |
 = help: give them to `dprobes asm` when the object is made
"#,
    );
    let mut damaged = read("openat.dpo");
    damaged[100] ^= 1;
    folder.put("damaged.dpo", &damaged);
    for command in ["check", "disasm"] {
        folder
            .dprobes(&[command, "damaged.dpo"])
            .code(1)
            .stderr_has("error: damaged.dpo: the object is damaged: its checksum is");
    }
    folder.put("short.dpo", &damaged[..50]);
    folder.dprobes(&["check", "short.dpo"]).code(1).stderr(
        r#"
error: short.dpo: 50 bytes are not a program object: its header alone has 96
 |
 = help: make the object again with `dprobes asm`, with the same version of the command
"#,
    );
}

#[test]
fn a_mistake_is_shown_where_it_is() {
    let folder = Folder::new();
    folder.put("wrong.rpn", PROGRAM.replace("push    255", "psuh    255").as_bytes());
    folder
        .dprobes(&["check", "wrong.rpn"])
        .code(1)
        .stderr_has("error: unknown instruction `psuh`\n  --> wrong.rpn:11:9\n")
        .stderr_has("11 +         push    255");
    folder.put("binary.rpn", b"name = \xff\xfe");
    folder.dprobes(&["check", "binary.rpn"]).code(1).stderr(
        r#"
error: binary.rpn is neither a program in UTF-8 nor an object
 |
 = note: byte 7 is not text
"#,
    );
    folder.dprobes(&["check", "absent.rpn"]).code(1).stderr(
        r#"
error: cannot read absent.rpn: No such file or directory
"#,
    );
    // The verifier's objections have lines too: nothing is on the stack here.
    folder.put("underflow.rpn", PROGRAM.replace("push    255", "nop").as_bytes());
    folder.dprobes(&["check", "underflow.rpn"]).code(1).stderr(
        r#"
error: `log str` takes 2 words from the stack, where there are never more than 1
  --> underflow.rpn:13:9
   |
13 |         log     str
   |         ^^^^^^^^^^^
"#,
    );
}

#[test]
fn a_definition_reaches_the_program() {
    let folder = Folder::new();
    folder.put_at("defined.rpn", "do_sys_openat2 + OFFSET");
    folder
        .dprobes(&["check", "defined.rpn", "-DOFFSET=0x10", "--kallsyms", "symbols"])
        .code(0)
        .stdout(
            r#"
program 1 for the kernel: 1 probe, 1 local variable, 17 bytes of code
each hit may log 1024 bytes, take 65535 jumps and execute 1000000 instructions
  1.1     do_sys_openat2+0x10: at 0xffffffff81200010, 17 bytes, ends after 100 hits
"#,
        );
    folder.dprobes(&["check", "defined.rpn", "-D", "1=2"]).code(2);
}

#[test]
fn a_location_that_does_not_exist_is_explained() {
    let folder = Folder::new();
    let check = |location: &str| {
        folder.put_at("at.rpn", location);
        folder.dprobes(&["check", "at.rpn", "--kallsyms", "symbols"]).code(1)
    };
    check("do_sys_opneat2").stderr(
        r#"
error: the kernel has no symbol do_sys_opneat2
 --> at.rpn:6:1
  |
6 | offset   = do_sys_opneat2
  | ^^^^^^ probe 1.1
  |
  = help: is one of these meant? do_sys_openat2
"#,
    );
    check("do_sys_openat2+0x90").stderr(
        r#"
error: do_sys_openat2+0x90 is outside do_sys_openat2
 --> at.rpn:6:1
  |
6 | offset   = do_sys_openat2+0x90
  | ^^^^^^ probe 1.1
  |
  = note: do_sys_openat2 has 0x90 bytes, so offsets in it go from 0 to 0x8f
  = help: `objdump -d --disassemble=do_sys_openat2` of the kernel's vmlinux shows where instructions begin
"#,
    );
    check("helper").stderr(
        r#"
error: the kernel has 2 functions with the name helper
 --> at.rpn:6:1
  |
6 | offset   = helper
  | ^^^^^^ probe 1.1
  |
  = note: one is at 0xffffffff81200090, after do_sys_openat2
  = note: one is at 0xffffffff81200100, after helper
  = help: say which by its address: `address = 0x...`; it holds until the next boot
"#,
    );
    check("shorten").stderr(
        r#"
error: the kernel has no symbol shorten
 --> at.rpn:6:1
  |
6 | offset   = shorten
  | ^^^^^^ probe 1.1
  |
  = note: the compiler made a variant of the function: shorten.isra.0
  = help: `offset = shorten.isra.0` puts the probe into the variant; its arguments may differ
"#,
    );
    check("jiffies").stderr(
        r#"
error: jiffies is data, not a function
 --> at.rpn:6:1
  |
6 | offset   = jiffies
  | ^^^^^^ probe 1.1
  |
  = note: its type in the list of symbols is D; functions have t, T, w or W
  = help: a probe goes on an instruction: name a function
"#,
    );
    check("ext4_open").stderr(
        r#"
error: the kernel has no symbol ext4_open
 --> at.rpn:6:1
  |
6 | offset   = ext4_open
  | ^^^^^^ probe 1.1
  |
  = help: module ext4 has it: write `name = "ext4"` and `modtype = kmod`
"#,
    );
    folder.put_at("at.rpn", "shorten.isra.0");
    folder.dprobes(&["check", "at.rpn", "--kallsyms", "symbols"]).code(0);
}

#[test]
fn many_mistakes_are_counted() {
    let folder = Folder::new();
    let mut program = "name = \"kernel\"\nmodtype = kernel\nmajor = 1\n".to_owned();
    for minor in 1..=30 {
        program.push_str(&format!("offset = missing_{minor}\nminor = {minor}\nexit\n"));
    }
    folder.put("many.rpn", program.as_bytes());
    folder
        .dprobes(&["check", "many.rpn", "--kallsyms", "symbols"])
        .code(1)
        .stderr_has("the kernel has no symbol missing_20")
        .stderr_has("error: 10 more locations cannot be resolved");
}

#[test]
fn hidden_symbols_are_a_matter_of_permission() {
    let folder = Folder::new();
    folder.put(
        "hidden",
        b"0000000000000000 T do_sys_openat2\n0000000000000000 t helper\n",
    );
    folder
        .dprobes(&["check", "openat.rpn", "--kallsyms", "hidden"])
        .code(4)
        .stderr(
            r#"
error: the kernel hides the addresses in hidden
 |
 = help: run the command as root; if that does not help, set the sysctl kernel.kptr_restrict to 1 or 0
"#,
        );
    folder
        .dprobes(&["check", "openat.rpn", "--kallsyms", "openat.rpn"])
        .code(1)
        .stderr(
            r#"
error: openat.rpn is not a list of symbols: see line 1
 |
 = note: a line has an address, a type, a name, and [module] for a module's symbol
"#,
        );
}

#[test]
fn wrong_usage_ends_with_2() {
    let folder = Folder::new();
    let wrong: [&[&str]; 9] = [
        &[],
        &["frobnicate"],
        &["insert"],
        &["remove"],
        &["remove", "1", "--all"],
        &["remove", "65536"],
        &["log", "--count", "0"],
        &["maps", "kernel", "opens"],
        &["asm", "openat.rpn"],
    ];
    for args in wrong {
        folder.dprobes(args).code(2);
    }
}

#[test]
fn every_command_has_help_with_examples_and_exit_codes() {
    let folder = Folder::new();
    for command in [
        "insert", "remove", "query", "log", "maps", "asm", "check", "run", "fmt", "disasm",
    ] {
        let help = folder.dprobes(&[command, "--help"]).code(0).stdout;
        let help = String::from_utf8(help).unwrap();
        for part in ["Examples:", "Exit codes:", &format!("dprobes {command}")] {
            assert!(help.contains(part), "{command}: no {part} in\n{help}");
        }
    }
}

/// bash itself completes: what it offers for the last of these words.
fn bash_completes(words: &[&str]) -> Option<Vec<String>> {
    let folder = Folder::new();
    let script = folder.dprobes(&["completion", "bash"]).code(0).stdout;
    folder.put("completion", &script);
    // As bash does it, from what `complete` has registered (bash(1), "Programmable Completion").
    let ask = ". ./completion
        function=$(complete -p dprobes | sed 's/.* -F \\([^ ]*\\).*/\\1/')
        COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        \"$function\" dprobes \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let output = Command::new("bash")
        .current_dir(folder.0.path())
        .args(["--norc", "-c", ask, "bash"])
        .args(words)
        .output()
        .ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().map(str::to_owned).collect())
}

#[test]
fn bash_completes_commands_options_and_values() {
    let Some(commands) = bash_completes(&["dprobes", ""]) else {
        // No bash.
        return;
    };
    for command in ["insert", "remove", "query", "log", "maps", "vars", "top", "completion"] {
        assert!(commands.iter().any(|word| word == command), "{command}: {commands:?}");
    }
    let complete = |words: &[&str]| bash_completes(words).unwrap();
    assert_eq!(complete(&["dprobes", "ins"]), ["insert"]);
    assert_eq!(complete(&["dprobes", "insert", "--rep"]), ["--replace"]);
    assert_eq!(complete(&["dprobes", "insert", "--dont"]), ["--dont-verify-opcodes"]);
    assert_eq!(complete(&["dprobes", "remove", "1", "--mi"]), ["--minor"]);
    assert_eq!(complete(&["dprobes", "completion", "ba"]), ["bash"]);
    // Files are left to bash.
    assert_eq!(complete(&["dprobes", "insert", "open"]), [""]);
}

#[test]
fn zsh_and_fish_know_the_commands() {
    let folder = Folder::new();
    for shell in ["zsh", "fish"] {
        let ran = folder.dprobes(&["completion", shell]).code(0);
        let script = String::from_utf8(ran.stdout).unwrap();
        for word in ["insert", "dont-verify-opcodes", "minor", "merge"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        // They read it without complaint, where they are installed.
        folder.put("script", script.as_bytes());
        if let Ok(output) = Command::new(shell)
            .args(["-n", "script"])
            .current_dir(folder.0.path())
            .output()
        {
            assert!(
                output.status.success(),
                "{shell}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    folder.dprobes(&["completion", "tcsh"]).code(2);
}

#[test]
fn what_contradicts_itself_is_wrong_usage() {
    let folder = Folder::new();
    let wrong: [&[&str]; 7] = [
        &["insert", "openat.rpn", "--merge", "--replace"],
        &["insert", "openat.rpn", "--group", "x"],
        &["insert", "openat.rpn", "--group", "3-1"],
        &["insert", "openat.rpn", "--type", "65536"],
        &["remove", "--all", "--minor", "1"],
        &["remove", "1", "--minor", "1", "--group", "2"],
        &["remove", "--minor", "1"],
    ];
    for command in wrong {
        folder.dprobes(command).code(2);
    }
    // Before the device is asked.
    folder
        .dprobes(&[&["insert", "openat.rpn", "--group", "1,4-6"], &NO_MODULE[..]].concat())
        .code(1)
        .stderr(
            r#"
error: the program has no probe of the groups and types that were asked for
 |
 = note: its probes have: group 0, type 0
"#,
        );
}
