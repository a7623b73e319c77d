//! The interpreter against a second one, on random programs.
//!
//! `DPROBES_RPN_PROGRAMS` sets how many, `DPROBES_RPN_SEED` which: with the same seed they are the same ones. 10,000,000 take minutes with
//! `cargo test --release`.

mod rpn;

use std::collections::{BTreeMap, BTreeSet};

use dprobes::rpn::exception;
use dprobes::rpn::interp::Workspace;
use dprobes::rpn::op::{Op, Operand, Words};
use dprobes::rpn::reg::Reg;
use rpn::build::Builder;
use rpn::compare::agrees;
use rpn::naive::{POOL_FIRST, Seen};
use rpn::random::{PORT, RAM, Rng, program};

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect(variable))
}

/// The instruction a row of the reference is about: `push lv, VARIABLE`, `exit_to FACILITY`.
fn named(text: &str) -> Option<Op> {
    let words: Vec<&str> = text.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let is_operand = |word: &&str| word.chars().all(|c| c.is_ascii_uppercase());
    let has_operand = words.last().is_some_and(is_operand);
    let (mnemonic, selectors) = words.split_first().filter(|(mnemonic, _)| !is_operand(mnemonic))?;
    let selectors = &selectors[..selectors.len() - usize::from(has_operand)];
    Op::find(mnemonic, selectors, has_operand)
}

/// The exceptions of each instruction, as the tables of docs/language.md have them.
fn documented() -> BTreeMap<Op, BTreeSet<u16>> {
    let mut table: BTreeMap<Op, BTreeSet<u16>> = BTreeMap::new();
    for line in include_str!("../../docs/language.md").lines() {
        // A bar in a cell is escaped.
        let line = line.replace("\\|", "");
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", first, _, _, last, ""] = cells[..] else {
            continue;
        };
        let Some(op) = first
            .strip_prefix('`')
            .and_then(|first| named(first.split('`').next()?))
        else {
            continue;
        };
        let exceptions = exception::CODES.iter().filter(|(name, _)| last.contains(name));
        table.entry(op).or_default().extend(exceptions.map(|(_, code)| *code));
    }
    table
}

/// Every program that verifies does the same in both; and the programs are such that every instruction is executed and raises every
/// exception that the reference says it can, and no other.
#[test]
fn random_programs_agree() {
    let wanted = number("DPROBES_RPN_PROGRAMS", 400_000);
    let mut rng = Rng(number("DPROBES_RPN_SEED", 0x7270_6e31));
    let mut ws = Box::new(Workspace::new());
    let mut seen = Seen::new();
    let (mut verified, mut tried) = (0, 0);
    while verified < wanted {
        tried += 1;
        assert!(tried < 20 * wanted + 100, "only {verified} of {tried} programs verify");
        let seed = rng.0;
        let builder = program(&mut rng);
        let what = || format!("seed {seed:#x}: {:x?}", program(&mut Rng(seed)).code);
        verified += u64::from(agrees(&builder, &mut rng, &mut ws, &mut seen, |_, _| {}, &what));
    }
    println!(
        "{verified} of {tried} programs verified, {} instructions executed",
        seen.executed.iter().sum::<u64>()
    );
    if wanted >= 200_000 {
        everything_was_seen(&seen);
    }
}

fn everything_was_seen(seen: &Seen) {
    let documented = documented();
    let mut wrong = Vec::new();
    for op in Op::ALL {
        if seen.executed[usize::from(op.byte())] == 0 {
            wrong.push(format!("`{op}` was not executed"));
        }
        let Some(expected) = documented.get(op) else {
            wrong.push(format!("`{op}` is not in the reference"));
            continue;
        };
        let raised = |code, class: Option<u64>, handled: bool| -> u64 {
            let all = seen.raised.iter().filter(|((by, what, which, caught), _)| {
                (*by, *what, *caught) == (*op, code, handled) && class.is_none_or(|class| class == *which)
            });
            all.map(|(_, count)| *count).sum()
        };
        for (name, code) in exception::CODES {
            let counts = [raised(*code, None, true), raised(*code, None, false)];
            println!("{op} {name}: {counts:?}");
            // What every instruction can raise that uses the stack, or is charged for what it does, or `rx`.
            let general = [exception::RPN_STACK_WRAP, exception::MAX_JMPS, exception::USER].contains(code);
            if expected.contains(code) && counts.contains(&0) {
                wrong.push(format!(
                    "`{op}` has raised {name} {counts:?} times, with and without a handler"
                ));
            }
            if !expected.contains(code) && !general && counts != [0, 0] {
                wrong.push(format!("`{op}` has raised {name}, and the reference does not say so"));
            }
        }
    }
    for class in [1, 2, 3, 5, 6, 7, 8, 9, 10, 11] {
        if !seen
            .raised
            .keys()
            .any(|(_, code, which, _)| (*code, *which) == (exception::INVALID_OPERAND, class))
        {
            wrong.push(format!("INVALID_OPERAND of class {class} was never raised"));
        }
    }
    // Those that no verified program raises.
    let never = [exception::SEG_FAULT, exception::INVALID_OPCODE];
    for (name, code) in exception::CODES.iter().filter(|(_, code)| !never.contains(code)) {
        for handled in [true, false] {
            if !seen
                .raised
                .keys()
                .any(|(_, which, _, caught)| (which, *caught) == (code, handled))
            {
                wrong.push(format!("{name} was never raised, with a handler: {handled}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Programs with which the two have differed.
#[test]
fn what_differed_once_agrees() {
    let (mut ws, mut seen) = (Box::new(Workspace::new()), Seen::new());
    let mut check = |what: &str, builder: Builder| {
        let name = || what.to_owned();
        assert!(
            agrees(&builder, &mut Rng(1), &mut ws, &mut seen, |_, _| {}, &name),
            "{what} does not verify"
        );
    };
    // Each finds the workspace as the one before has left it.
    check("a full stack", Builder::text("push -1; dup 255; exit", 0));
    let above = Builder::text("push tsp, -1; log 1; exit", 0);
    check("the word above the top of a ring", above.ex_mask(0x0fff));
    let names = "log name; push 0; pop lp;".repeat(10);
    let name = Builder::text(&format!("push 65535; again: {names} loop again; exit"), 0);
    check("the price of a name", name.logmax(7));
}

/// Words on which instructions do something special, at the top of the stack.
const EDGES: &[u64] = &[
    0,
    1,
    2,
    63,
    64,
    65,
    1019,
    1023,
    1024,
    1025,
    PORT,
    RAM,
    POOL_FIRST,
    u64::MAX,
    1 << 63,
];

/// Operands at the edges of what an instruction takes, and beyond.
fn operands(op: Op) -> Vec<u64> {
    match op.info().operand {
        Operand::None | Operand::Branch | Operand::Facility | Operand::Group => vec![16],
        Operand::Local | Operand::Global => vec![0, 1],
        Operand::Map => vec![0, 1, 2],
        Operand::U8 => vec![0, 1, 2, 4, 5, 63, 64, 255],
        Operand::U16 => vec![0, 1, 2, 4, 5, 1020, 1023, 1024],
        Operand::Word => vec![0, u64::MAX],
        Operand::Reg => Reg::ALL.iter().map(|reg| u64::from(reg.number())).collect(),
        Operand::S16 => [
            -32_768, -1025, -1024, -3, -2, -1, 0, 1, 2, 3, 4, 1018, 1020, 1023, 1024, 32_767,
        ]
        .map(|position: i64| position as u64)
        .to_vec(),
    }
}

/// Words for the top of the stack, the deepest first, by how many an instruction looks at.
fn tops(op: Op) -> Vec<Vec<u64>> {
    let looks = match op.info().pops {
        Words::Fixed(n) => n,
        Words::Counted | Words::Operand => 1,
        Words::OperandPlus(_) => 2,
        Words::Register | Words::Map | Words::Any => 3,
    };
    match looks {
        0 => vec![vec![]],
        1 => EDGES.iter().map(|top| vec![*top]).collect(),
        2 => {
            let some = EDGES.iter().step_by(2);
            some.flat_map(|below| EDGES.iter().map(|top| vec![*below, *top]))
                .collect()
        }
        _ => vec![vec![1, 2, 0x8000], vec![3, 0, u64::MAX], vec![0, 1, 1]],
    }
}

/// Every instruction with every number of words on the stack that is at an edge, operands and words that are, in a bounded stack and in
/// a ring, with a depth that the verifier knows and one that it does not. The bounds of all that the interpreter indexes are in here.
#[test]
fn every_instruction_agrees_at_the_edges() {
    let (mut rng, mut ws, mut seen) = (Rng(3), Box::new(Workspace::new()), Seen::new());
    let (mut verified, mut refused) = (0, 0);
    let full = Builder::text("push -1; dup 255; exit", 0);
    for op in Op::ALL {
        let (operands, tops) = (operands(*op), tops(*op));
        // Of many registers and words each is taken with some depths.
        let all = operands.len() * tops.len();
        for (number, (operand, top)) in operands
            .iter()
            .flat_map(|o| tops.iter().map(move |t| (*o, t)))
            .enumerate()
        {
            for (turn, depth) in (0..=4).chain(1020..=1024).enumerate() {
                if depth < top.len() || (all > 40 && !(number + turn).is_multiple_of(3)) {
                    continue;
                }
                for (mask, depths) in [
                    (0xbfff, Depths::Known),
                    (0xbfff, Depths::Unknown),
                    (0xbfff, Depths::Plain),
                    (0x9fff, Depths::Known),
                    (0x9fff, Depths::Unknown),
                    (0x9fff, Depths::Plain),
                    (0x0000, Depths::Unknown),
                ] {
                    if depths == Depths::Plain {
                        if depth > 4 {
                            continue;
                        }
                        // What an earlier hit leaves behind must not be seen.
                        agrees(&full, &mut rng, &mut ws, &mut seen, |_, _| {}, &String::new);
                    }
                    let builder = edge_case(*op, operand, top, depth, mask, depths);
                    let below = (depth - top.len()) as u64;
                    let what = || format!("{op} {operand:#x} {top:x?} on {depth}, {mask:#x}, {depths:?}");
                    let prepare = |_: &mut _, world: &mut rpn::naive::World| world.locals = vec![below, 0];
                    if agrees(&builder, &mut rng, &mut ws, &mut seen, prepare, &what) {
                        verified += 1;
                    } else {
                        refused += 1;
                    }
                }
            }
        }
        assert!(seen.executed[usize::from(op.byte())] > 0, "`{op}` was not executed");
    }
    println!("{verified} cases, {refused} refused");
}

/// How a case comes to its depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depths {
    /// The words on top are pushed last.
    Known,
    /// The same, and after it the verifier knows of no word on the stack.
    Unknown,
    /// All words are pushed, and nothing shows words that were popped: a ring of which no more is kept than is used.
    Plain,
}

/// Code that gives the stack as many words as the first variable says and these on top, executes an instruction, and logs what then is
/// at the top of the stack.
fn edge_case(op: Op, operand: u64, top: &[u64], depth: usize, mask: u16, depths: Depths) -> Builder {
    let operand = if op.info().operand == Operand::Branch {
        0
    } else {
        operand
    };
    let push = |code: &mut Vec<u8>, word: u64| {
        code.push(Op::Push.byte());
        code.extend(word.to_le_bytes());
    };
    let mut code = Vec::new();
    if depths == Depths::Plain {
        (top.len()..depth).for_each(|number| push(&mut code, 0x70 + number as u64));
    } else {
        code = rpn::build::assemble("push 0; push 100; trace pv; push lv, 0; restore tsp");
    }
    top.iter().for_each(|word| push(&mut code, *word));
    if depths == Depths::Unknown {
        code.extend(rpn::build::assemble("push lv, 1; log"));
    }
    let (tail, handled) = match (depths, op.info().pops, op.info().pushes) {
        (Depths::Plain, Words::Fixed(pops), Words::Fixed(pushes)) => {
            let left = (depth + usize::from(pushes)).saturating_sub(usize::from(pops));
            (format!("log {left}; exit"), false)
        }
        (Depths::Plain, ..) => ("exit".to_owned(), false),
        _ => ("log st; exit".to_owned(), true),
    };
    if handled {
        // The handler is behind the instruction; a branch goes there too.
        code.push(Op::Sx.byte());
        code.extend((op.size() as u32).to_le_bytes());
    }
    code.push(op.byte());
    code.extend(&operand.to_le_bytes()[..op.info().operand.size()]);
    code.extend(rpn::build::assemble(&tail));
    let builder = Builder::new(code, 2).globals(2).map(0, 0, 8).map(1, 2, 8).map(5, 4, 8);
    builder.heap(100).group(16).ex_mask(mask)
}
