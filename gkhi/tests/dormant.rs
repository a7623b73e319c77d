//! A dormant site is one 5-byte NOP: functions are compiled with and without hooks, and compared instruction by instruction.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter, Instruction, InstructionInfoFactory, IntelFormatter, Mnemonic,
    OpKind, Register,
};
use object::{Object, ObjectSection, ObjectSymbol};

/// Compiles gkhi and the subject; returns the object file's bytes.
fn compile(optimised: bool, hooks: bool) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Tests run side by side, and some compile the same.
    static COMPILED: AtomicU32 = AtomicU32::new(0);
    let number = COMPILED.fetch_add(1, Ordering::Relaxed);
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("dormant-{number}"));
    std::fs::create_dir_all(&out).unwrap();
    let rustc = |arguments: &[&str], source: PathBuf| {
        let mut command = Command::new("rustc");
        command
            .args(["--edition", "2024", "--target", "x86_64-unknown-linux-gnu", "--out-dir"])
            .arg(&out);
        command.args(["-C", "panic=abort", "-C", "codegen-units=1"]);
        // `profile.dev` and `profile.release` of cargo.
        command.args(if optimised {
            &["-C", "opt-level=3"][..]
        } else {
            &["-C", "opt-level=0", "-C", "debug-assertions=on", "-C", "debuginfo=2"]
        });
        if hooks {
            command.args(["--cfg", "feature=\"hooks\""]);
        }
        let status = command.args(arguments).arg(source).status().unwrap();
        assert!(status.success());
    };
    rustc(
        &["--crate-name", "gkhi", "--crate-type", "rlib"],
        root.join("src/lib.rs"),
    );
    let library = format!("gkhi={}", out.join("libgkhi.rlib").display());
    rustc(
        &["--emit", "obj", "--extern", &library],
        root.join("tests/dormant/subject.rs"),
    );
    std::fs::read(out.join("subject.o")).unwrap()
}

/// One function.
struct Function {
    code: Vec<Instruction>,
    /// Offsets of operands that the linker fills in.
    relocated: BTreeSet<u64>,
}

fn functions(object: &[u8]) -> BTreeMap<String, Function> {
    let file = object::File::parse(object).unwrap();
    let mut functions = BTreeMap::new();
    for symbol in file
        .symbols()
        .filter(|symbol| symbol.is_global() && symbol.kind() == object::SymbolKind::Text)
    {
        let name = symbol.name().unwrap();
        if name.starts_with('_') {
            continue;
        }
        let section = file.section_by_index(symbol.section_index().unwrap()).unwrap();
        let code = section.data_range(symbol.address(), symbol.size()).unwrap().unwrap();
        let code = Decoder::with_ip(64, code, symbol.address(), DecoderOptions::NONE)
            .into_iter()
            .collect();
        let relocated = section.relocations().map(|(offset, _)| offset).collect();
        functions.insert(name.to_owned(), Function { code, relocated });
    }
    assert!(functions.len() >= 15);
    functions
}

const NOP: [u8; 5] = gkhi::NOP;

fn is_site(instruction: &Instruction) -> bool {
    instruction.len() == NOP.len() && instruction.mnemonic() == iced_x86::Mnemonic::Nop
}

/// The instructions that are reached while all sites are dormant, in the order of their addresses.
fn hot_path(function: &Function) -> Vec<Instruction> {
    let at: HashMap<u64, &Instruction> = function
        .code
        .iter()
        .map(|instruction| (instruction.ip(), instruction))
        .collect();
    let mut reached = BTreeMap::new();
    let mut open = vec![function.code[0].ip()];
    while let Some(ip) = open.pop() {
        let Some(&instruction) = at.get(&ip) else {
            continue;
        };
        if reached.insert(ip, *instruction).is_some() {
            continue;
        }
        let elsewhere = function.relocated.range(ip..instruction.next_ip()).next().is_some();
        let flow = instruction.flow_control();
        if matches!(flow, FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch) && !elsewhere {
            open.push(instruction.near_branch_target());
        }
        if matches!(
            flow,
            FlowControl::Next
                | FlowControl::ConditionalBranch
                | FlowControl::Call
                | FlowControl::IndirectCall
                | FlowControl::XbeginXabortXend
        ) {
            open.push(instruction.next_ip());
        }
    }
    reached.into_values().collect()
}

/// As text, without what depends on where things are: branch targets, and the place and size of the stack frame.
fn text(instruction: &Instruction) -> String {
    let mut instruction = *instruction;
    let frame = instruction.memory_base() == Register::RSP || instruction.memory_base() == Register::RBP;
    if frame || instruction.is_ip_rel_memory_operand() {
        instruction.set_memory_displacement64(0x100);
    }
    let mut text = String::new();
    IntelFormatter::new().format(&instruction, &mut text);
    if instruction.near_branch_target() != 0 || instruction.op0_register() == Register::RSP {
        text.truncate(text.find([' ', ',']).unwrap());
    }
    text
}

/// How often the stack is touched, but for calls and returns.
fn stack_accesses(code: &[Instruction]) -> usize {
    let mut factory = InstructionInfoFactory::new();
    code.iter()
        .filter(|instruction| {
            !matches!(
                instruction.flow_control(),
                FlowControl::Call | FlowControl::IndirectCall | FlowControl::Return
            ) && factory
                .info(instruction)
                .used_memory()
                .iter()
                .any(|memory| matches!(memory.base(), Register::RSP | Register::RBP))
        })
        .count()
}

/// The registers that one form may have in place of another: by full register, in the order of their first use. What is pushed and
/// popped is left out, since that is in the order of the registers' numbers.
fn texts(code: &[Instruction]) -> Vec<String> {
    let mut names: Vec<Register> = Vec::new();
    code.iter()
        .map(|instruction| {
            let mut instruction = *instruction;
            if matches!(instruction.mnemonic(), Mnemonic::Push | Mnemonic::Pop) {
                return format!("{:?}", instruction.mnemonic());
            }
            let mut rename = |register: Register| {
                if !register.is_gpr() || register.full_register() == Register::RSP {
                    return register;
                }
                let full = register.full_register();
                let index = names.iter().position(|&known| known == full).unwrap_or_else(|| {
                    names.push(full);
                    names.len() - 1
                });
                // RAX, RCX, RDX, RBX, RSP, RBP, ...: one of the same size.
                let base = match register.size() {
                    8 => Register::RAX,
                    4 => Register::EAX,
                    2 => Register::AX,
                    _ => return register,
                };
                base + if index < 4 { index as u32 } else { index as u32 + 1 }
            };
            for operand in 0..instruction.op_count() {
                if instruction.op_kind(operand) == OpKind::Register {
                    instruction.set_op_register(operand, rename(instruction.op_register(operand)));
                }
            }
            instruction.set_memory_base(rename(instruction.memory_base()));
            instruction.set_memory_index(rename(instruction.memory_index()));
            text(&instruction)
        })
        .collect()
}

/// Instructions that a release build adds besides the NOP, and why.
fn allowed_in_release(shape: &str) -> (usize, &'static str) {
    match shape {
        // Without the site it has no frame at all in one branch: it jumps to the other function.
        "in_a_branch" => (2, "push and pop align the stack for the exit's call"),
        // A copy of the variable has a place in the frame, so that the last call cannot be a jump.
        "by_reference" => (3, "the frame for the copy: sub, add, and call and ret instead of jmp"),
        "returning_between_calls" => (2, "the answer comes in RAX, so that a value there is kept elsewhere"),
        "in_a_loop" => (1, "a register is copied to another at the end of the loop"),
        _ => (0, ""),
    }
}

#[test]
fn release_has_one_nop_more_and_nothing_else() {
    let (on, off) = (functions(&compile(true, true)), functions(&compile(true, false)));
    let mut same = 0;
    for (name, with) in &on {
        let with = hot_path(with);
        let without = hot_path(&off[name]);
        assert_eq!(
            with.iter().filter(|instruction| is_site(instruction)).count(),
            1,
            "{name}"
        );
        let rest: Vec<Instruction> = with
            .iter()
            .filter(|instruction| !is_site(instruction))
            .copied()
            .collect();
        let (allowed, why) = allowed_in_release(name);
        assert!(
            rest.len() <= without.len() + allowed,
            "{name} ({why}): {:#?}",
            texts(&rest)
        );
        if allowed == 0 {
            assert_eq!(rest.len(), without.len(), "{name}");
            assert_eq!(stack_accesses(&rest), stack_accesses(&without), "{name}");
        }
        // The same instructions too, except that one may read a register that another is a copy of.
        same += usize::from(texts(&rest) == texts(&without));
    }
    println!("{same} of {} functions are the same but for registers' names", on.len());
    assert!(same >= 9);
}

#[test]
fn debug_has_one_nop_and_the_compilers_jump_more_and_nothing_else() {
    let (on, off) = (functions(&compile(false, true)), functions(&compile(false, false)));
    for (name, with) in &on {
        let with = hot_path(with);
        let without = hot_path(&off[name]);
        let sites: Vec<usize> = (0..with.len()).filter(|&index| is_site(&with[index])).collect();
        let [site] = sites[..] else {
            panic!("{name}: {} sites", sites.len());
        };
        assert_eq!(
            with[site + 1].flow_control(),
            FlowControl::UnconditionalBranch,
            "{name}"
        );
        // A block of the compiler ends at the site, as at every `if`: what lives on goes through its place in the frame. Nothing but such
        // moves is added, and nothing is computed or called for the hook.
        let computing = |code: &[Instruction]| -> Vec<Mnemonic> {
            let frame = |instruction: &Instruction| {
                matches!(
                    instruction.mnemonic(),
                    Mnemonic::Mov | Mnemonic::Nop | Mnemonic::Jmp | Mnemonic::Push | Mnemonic::Pop
                ) || instruction.op0_register() == Register::RSP
            };
            let mut computing: Vec<Mnemonic> = code
                .iter()
                .filter(|instruction| !frame(instruction))
                .map(Instruction::mnemonic)
                .collect();
            // Blocks are in another order.
            computing.sort_by_key(|mnemonic| *mnemonic as u32);
            computing
        };
        assert_eq!(computing(&with), computing(&without), "{name}");
    }
}

#[test]
fn without_hooks_there_is_nothing_at_all() {
    for optimised in [false, true] {
        let object = compile(optimised, false);
        let file = object::File::parse(&*object).unwrap();
        assert!(file.section_by_name("gkhi_sites").is_none());
        assert!(file.section_by_name("gkhi_calls").is_none());
        let nothing = &functions(&object)["nothing"];
        assert_eq!(nothing.code.len(), 1, "only ret");
    }
}

/// Instructions of an armed pass over those of a dormant one, up to the exit and after it.
#[test]
fn an_armed_pass_takes_as_many_instructions_as_documented() {
    let file = compile(true, true);
    let functions = functions(&file);
    for (name, most) in [
        // It has no frame: two align the stack.
        ("nothing", 10),
        ("between_calls", 9),
        ("two_between_calls", 10),
        // Nine, the argument, and three because a value is in RAX, where the answer comes.
        ("returning_between_calls", 13),
    ] {
        let function = &functions[name];
        let hot: BTreeSet<u64> = hot_path(function).iter().map(Instruction::ip).collect();
        let cold: Vec<&Instruction> = function
            .code
            .iter()
            .filter(|instruction| !hot.contains(&instruction.ip()))
            .collect();
        // The jump at the site, and the out-of-line code up to the jump back; alignment between functions is not in the symbol.
        let end = cold
            .iter()
            .position(|instruction| {
                matches!(
                    instruction.flow_control(),
                    FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::Return
                )
            })
            .unwrap();
        let count = 1 + end + 1;
        println!("{name}: {count}");
        for instruction in &cold[..=end] {
            println!("    {}", text(instruction));
        }
        assert!(count <= most, "{name}: {count}");
    }
}
