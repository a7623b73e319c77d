//! `include/gkhi.h`, compiled by gcc and clang: what a dormant site is in C, and what does not compile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// As kernels compile, and without padding that could be taken for a site.
const FLAGS: [&str; 12] = [
    "-std=gnu11",
    "-Wall",
    "-Werror",
    "-Wno-unused-parameter",
    "-mno-red-zone",
    "-mcmodel=kernel",
    "-fno-pic",
    "-fno-pie",
    "-mgeneral-regs-only",
    "-fcf-protection=none",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
];
const COMPILERS: [&str; 2] = ["gcc", "clang"];
const NOP: &str = "nopl   0x0(%rax,%rax,1)";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn compile(compiler: &str, source: &str, more: &[&str], object: &Path) -> Output {
    Command::new(compiler)
        .args(FLAGS)
        .args(more)
        .arg("-I")
        .arg(root().join("include"))
        .arg("-c")
        .arg(root().join("gkhi/tests/c").join(source))
        .arg("-o")
        .arg(object)
        .output()
        .unwrap_or_else(|error| panic!("{compiler} cannot be run: {error}"))
}

fn object(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The instructions of each function, by address.
fn disassemble(object: &Path) -> BTreeMap<String, BTreeMap<u64, String>> {
    let output = Command::new("objdump")
        .args(["-d", "--no-show-raw-insn"])
        .arg(object)
        .output()
        .expect("objdump can be run");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let mut functions = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((_, name)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            current = name.to_owned();
        } else if let Some((address, instruction)) = line.trim_start().split_once(":\t")
            && let Ok(address) = u64::from_str_radix(address, 16)
        {
            functions
                .entry(current.clone())
                .or_insert_with(BTreeMap::new)
                .insert(address, instruction.trim().to_owned());
        }
    }
    functions
}

/// What is executed while every site is a NOP: everything that can be reached from the beginning by falling through and by jumping.
fn hot_path(code: &BTreeMap<u64, String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut wanted: Vec<u64> = code.keys().next().copied().into_iter().collect();
    while let Some(address) = wanted.pop() {
        let Some(instruction) = code.get(&address) else {
            continue;
        };
        if !seen.insert(address) {
            continue;
        }
        let (mnemonic, operands) = instruction.split_once(' ').unwrap_or((instruction, ""));
        if mnemonic.starts_with('j') {
            let target = operands.split_whitespace().next().unwrap_or("");
            wanted.extend(u64::from_str_radix(target, 16));
        }
        if mnemonic != "jmp" && mnemonic != "ret" {
            wanted.extend(code.range(address + 1..).next().map(|(&next, _)| next));
        }
    }
    seen.iter().map(|address| code[address].clone()).collect()
}

fn is_padding(instruction: &str) -> bool {
    instruction != NOP && (instruction.contains("nop") || instruction == "xchg   %ax,%ax")
}

/// Does it use the stack, or other memory?
fn uses_memory(instruction: &str) -> bool {
    ["push", "pop", "(", "rsp"]
        .iter()
        .any(|part| instruction.contains(part))
        && !instruction.starts_with("lea")
        && instruction != NOP
}

#[test]
fn a_dormant_site_is_one_nop() {
    for compiler in COMPILERS {
        // With -Os gcc keeps the code out of line where it is written, and jumps over it.
        for level in ["-O2", "-O3"] {
            // Alignment may be a NOP of five bytes, too: not where it would be reached.
            let mut more = vec![level];
            if compiler == "gcc" {
                more.extend(["-fno-align-loops", "-fno-align-jumps", "-fno-align-labels"]);
            } else {
                more.push("-fno-unroll-loops");
            }
            let with = object(&format!("{compiler}{level}-with.o"));
            let without = object(&format!("{compiler}{level}-without.o"));
            for (file, define) in [(&with, "-DHOOKED"), (&without, "-DGKHI_DISABLED")] {
                let mut more = more.clone();
                more.push(define);
                let output = compile(compiler, "dormant.c", &more, file);
                assert!(
                    output.status.success(),
                    "{compiler}: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            let (with, without) = (disassemble(&with), disassemble(&without));
            for name in ["leaf", "loop", "calls", "many", "returns", "returns_nothing"] {
                let clean = |code: &BTreeMap<u64, String>| -> Vec<String> {
                    hot_path(code)
                        .into_iter()
                        .filter(|instruction| !is_padding(instruction))
                        .collect()
                };
                let (with, without) = (clean(&with[name]), clean(&without[name]));
                let whole = format!("{compiler} {level}, {name}:\nwith {with:#?}\nwithout {without:#?}");
                assert_eq!(
                    with.iter().filter(|instruction| *instruction == NOP).count(),
                    1,
                    "{whole}"
                );
                // Nothing is saved, loaded or stored for it.
                let memory = |code: &[String]| code.iter().filter(|instruction| uses_memory(instruction)).count();
                assert_eq!(memory(&with), memory(&without), "{whole}");
                // What is more are moves from register to register: arguments are kept where the code out of line wants them.
                let others = |code: &[String]| {
                    code.iter()
                        .filter(|instruction| {
                            *instruction != NOP && (!instruction.starts_with("mov ") || uses_memory(instruction))
                        })
                        .count()
                };
                // clang does not know that the label is cold, and may place a loop's blocks so that a jump more is executed.
                let jump = usize::from(compiler == "clang" && name == "loop");
                assert!(others(&with) <= others(&without) + jump, "{whole}");
                assert!(with.len() <= without.len() + 5, "{whole}");
            }
        }
    }
}

#[test]
fn configured_out_nothing_is_left() {
    for compiler in COMPILERS {
        let file = object(&format!("{compiler}-disabled.o"));
        assert!(
            compile(compiler, "dormant.c", &["-O2", "-DGKHI_DISABLED"], &file)
                .status
                .success()
        );
        let bytes = std::fs::read(&file).unwrap();
        for trace in [&b"gkhi_sites"[..], b"gkhi_calls", b"gkhi_hook_plain"] {
            assert!(
                !bytes.windows(trace.len()).any(|window| window == trace),
                "{compiler}: {trace:?}"
            );
        }
    }
}

#[test]
fn wrong_prototypes_do_not_compile() {
    for compiler in COMPILERS {
        let file = object(&format!("{compiler}-wrong.o"));
        let compile = |define: &str| compile(compiler, "wrong.c", &["-O2", define], &file);
        let right = compile("-DWRONG=0");
        assert!(
            right.status.success(),
            "{compiler}: {}",
            String::from_utf8_lossy(&right.stderr)
        );
        for wrong in 1..=9 {
            let output = compile(&format!("-DWRONG={wrong}"));
            assert!(!output.status.success(), "{compiler} accepts WRONG={wrong}");
            let errors = String::from_utf8_lossy(&output.stderr);
            if wrong <= 3 {
                assert!(
                    errors.contains("the exit does not have the prototype of its hook"),
                    "{compiler} {wrong}: {errors}"
                );
            }
            if wrong == 7 {
                assert!(errors.contains("one word"), "{compiler} {wrong}: {errors}");
            }
        }
    }
}

/// docs/hooks.md shows code that is compiled and tested: each block is in the file that the line before it names.
#[test]
fn documentation_shows_tested_code() {
    let page = std::fs::read_to_string(root().join("docs/hooks.md")).unwrap();
    let mut blocks = 0;
    for part in page.split("<!-- ").skip(1) {
        let (path, rest) = part.split_once(" -->\n```").expect("a block of code follows");
        let (_, rest) = rest.split_once('\n').unwrap();
        let (block, _) = rest.split_once("```").expect("the block ends");
        let file = std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        // In documentation comments a line begins with the comment's mark.
        let plain: String = file
            .lines()
            .map(|line| {
                line.strip_prefix("//! ")
                    .or(line.strip_prefix("//!"))
                    .unwrap_or(line)
                    .to_owned()
                    + "\n"
            })
            .collect();
        assert!(file.contains(block) || plain.contains(block), "not in {path}:\n{block}");
        blocks += 1;
    }
    assert_eq!(
        blocks,
        page.matches("```c\n").count() + page.matches("```rust\n").count()
    );
    assert!(blocks >= 6);
}
