//! Random programs that use everything, as facts; their code and their text are made from these independently of the assembler.

use dprobes::rpn::object::layout::kind;
use dprobes::rpn::object::{Map, MapKind, Watch, WatchKind};
use dprobes::rpn::op::{Op, Operand, facility};
use dprobes::rpn::reg::Reg;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use std::fmt::Write;
use std::ops::Range;

/// A program.
#[derive(Debug, Clone)]
pub struct Program {
    pub probes: Vec<Probe>,
    pub locals: Vec<String>,
    pub globals: Vec<String>,
    pub maps: Vec<(String, MapKind, u8, u32)>,
    pub lines: Vec<Option<u32>>,
    pub major: u16,
    pub id: u32,
    pub heapmax: u16,
    pub auto_stack_trace: bool,
}

/// A probe. Which of the groups it is in decides whether it is suspended.
#[derive(Debug, Clone)]
pub struct Probe {
    pub instructions: Vec<Instruction>,
    pub place: (u8, u64, String),
    pub watch: Option<Watch>,
    pub minor: u16,
    pub group: u16,
    pub counts: (u64, u64),
    pub log_on_fault: bool,
    pub heap: Option<u16>,
}

impl Probe {
    pub fn suspended(&self) -> bool {
        self.group % 2 == 1
    }
}

/// An instruction of the table and a number that its operand is made of.
#[derive(Debug, Clone)]
pub struct Instruction {
    pub op: Op,
    pub number: u64,
    /// For a `push`.
    pub symbol: Option<(String, i64)>,
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_][a-z0-9_]{0,6}",
        "[a-z]{1,3}\\.[a-z]{1,3}\\.[0-9]",
        "[ -~\u{e9}\u{2028}]{1,8}",
        prop::sample::select(vec!["__FILE__", "rax", "cpu", "procid", "USER", "map", "0", "1", "_"])
            .prop_map(str::to_owned),
    ]
}

fn instruction() -> impl Strategy<Value = Instruction> {
    let number = prop_oneof![any::<u64>(), 0u64..300, any::<i8>().prop_map(|n| i64::from(n) as u64)];
    let addend = prop_oneof![Just(0), -300i64..300, any::<i64>()];
    let symbol = prop::option::of((name(), addend));
    // Many symbols are wanted, and there are many instructions.
    let op = prop_oneof![9 => prop::sample::select(Op::ALL), 1 => Just(Op::Push)];
    (op, number, symbol).prop_map(|(op, number, symbol)| Instruction {
        op,
        number,
        symbol: symbol.filter(|_| op == Op::Push),
    })
}

fn probe() -> impl Strategy<Value = Probe> {
    let place = (0u8..4, any::<u64>(), name()).prop_map(|(k, v, s)| match k {
        kind::SYMBOL => (k, v, s),
        kind::SOURCE => (k, (v % u64::from(u32::MAX)) + 1, s),
        _ => (k, v, String::new()),
    });
    let facts = (
        any::<u16>(),
        0u16..4,
        any::<(u64, u64)>(),
        any::<bool>(),
        any::<Option<u16>>(),
        prop::option::of((prop::sample::select(&WatchKind::ALL[..]), 0_usize..4)),
    );
    (vec(instruction(), 0..30), place, facts).prop_map(
        |(instructions, place, (minor, group, counts, log_on_fault, heap, watch))| Probe {
            instructions,
            place,
            watch: watch.and_then(|(kind, len)| Watch::new(kind, 1 << len)),
            minor,
            group,
            counts,
            log_on_fault,
            heap,
        },
    )
}

fn maps() -> impl Strategy<Value = Vec<(String, MapKind, u8, u32)>> {
    let linear = (any::<i32>(), 1u64..100, 1u64..50).prop_map(|(min, step, buckets)| MapKind::Linear {
        min: min.into(),
        max: i64::from(min) + (step * buckets) as i64,
        step,
    });
    let extreme = Just(MapKind::Linear {
        min: i64::MIN,
        max: i64::MAX,
        step: u64::MAX,
    });
    use MapKind::*;
    let kind = prop_oneof![
        prop::sample::select(vec![Count, Sum, Min, Max, Avg, Log2]),
        linear,
        extreme
    ];
    let entries = prop_oneof![Just(1), Just(128), 1u32..300];
    let map = (kind, 0u8..=4, entries);
    (btree_set(name(), 0..5), vec(map, 5)).prop_map(|(names, maps)| {
        names
            .into_iter()
            .zip(maps)
            .map(|(n, (kind, keys, entries))| (n, kind, keys, entries))
            .collect()
    })
}

/// Any program.
pub fn program() -> impl Strategy<Value = Program> {
    let local = prop_oneof![Just(String::new()), "[a-z_]{2,9}", "[a-z]\\.[a-z]", "rax|cpu|count"];
    let globals = prop_oneof![
        (0usize..5).prop_map(|n| (0..n).map(|n| n.to_string()).collect::<Vec<_>>()),
        btree_set(name(), 0..5).prop_map(|names| names.into_iter().collect()),
    ];
    let lines = vec(prop::option::weighted(0.9, 1u32..2000), 100);
    let facts = (1u16.., any::<u32>(), 0u16..=16384, any::<bool>());
    (
        vec(probe(), 1..4),
        btree_set(local, 0..5),
        globals,
        maps(),
        lines,
        facts,
    )
        .prop_map(
            |(probes, locals, globals, maps, lines, (major, id, heapmax, auto_stack_trace))| Program {
                probes,
                locals: locals.into_iter().collect(),
                globals,
                maps,
                lines,
                major,
                id,
                heapmax,
                auto_stack_trace,
            },
        )
        .prop_map(Program::sound)
}

/// The code of a program.
#[derive(Debug, Default)]
pub struct Code {
    pub bytes: Vec<u8>,
    pub handlers: Vec<Range<u32>>,
    /// Where instructions begin.
    pub starts: Vec<u32>,
    /// Words that are symbols.
    pub symbols: Vec<(u32, String, i64)>,
}

impl Program {
    /// Without instructions that name what the program does not have, for which there is no text.
    fn sound(mut self) -> Self {
        for probe in &mut self.probes {
            probe.instructions.retain(|i| match i.op.info().operand {
                Operand::Local => !self.locals.is_empty(),
                Operand::Global => !self.globals.is_empty(),
                Operand::Map => !self.maps.is_empty(),
                _ => true,
            });
            probe.watchable();
            probe.heap = probe.heap.map(|heap| heap % (self.heapmax + 1));
        }
        self
    }

    pub fn map(&self, index: usize) -> Map<'_> {
        let (name, kind, keys, entries) = &self.maps[index];
        Map {
            name,
            kind: *kind,
            keys: *keys,
            entries: *entries,
        }
    }

    fn operand(&self, op: Op, number: u64) -> u64 {
        let one_of = |numbers: Vec<u64>| numbers[number as usize % numbers.len()];
        let register = |wanted: fn(&Reg) -> bool| {
            let all = Reg::ALL.iter().copied().filter(wanted);
            one_of(all.map(|r| r.number().into()).collect())
        };
        match (op, op.info().operand) {
            (Op::PushR, _) => register(|_| true),
            (Op::PushU, _) => register(|r| r.is_saved()),
            (_, Operand::Reg) => register(|r| r.is_writable()),
            (_, Operand::Local) => number % self.locals.len() as u64,
            (_, Operand::Global) => number % self.globals.len() as u64,
            (_, Operand::Map) => number % self.maps.len() as u64,
            (_, Operand::Group) => one_of(self.probes.iter().map(|p| p.group.into()).collect()),
            (_, Operand::Facility) => one_of((0..=255).filter(|n| facility::is_valid(*n)).map(u64::from).collect()),
            _ => number,
        }
    }

    /// The code that the assembler must make.
    pub fn code(&self) -> Code {
        let mut code = Code::default();
        for probe in &self.probes {
            let begin = code.bytes.len();
            let exit = Instruction {
                op: Op::Exit,
                number: 0,
                symbol: None,
            };
            let all: Vec<_> = probe.instructions.iter().chain([&exit]).collect();
            let mut offsets = vec![];
            let mut at = begin;
            for i in &all {
                offsets.push(at);
                at += i.op.size();
            }
            for (i, offset) in all.iter().zip(&offsets) {
                let mut operand = self.operand(i.op, i.number);
                if i.op.info().operand == Operand::Branch {
                    let target = offsets[i.number as usize % offsets.len()] as i64;
                    operand = (target - (*offset + i.op.size()) as i64) as u64;
                }
                if let Some((symbol, addend)) = &i.symbol {
                    operand = 0;
                    code.symbols.push((*offset as u32 + 1, symbol.clone(), *addend));
                }
                code.bytes.push(i.op.byte());
                code.bytes
                    .extend_from_slice(&operand.to_le_bytes()[..i.op.info().operand.size()]);
            }
            code.starts.extend(offsets.iter().map(|o| *o as u32));
            code.handlers.push(begin as u32..code.bytes.len() as u32);
        }
        code
    }

    /// The program as text, written without the disassembler.
    pub fn text(&self) -> String {
        let mut text = format!(
            "name = \"m\"\nmodtype = user\nmajor = {}\nid = {}\n",
            self.major, self.id
        );
        writeln!(text, "heapmax = {}", self.heapmax).unwrap();
        writeln!(text, "autostacktrace = {}", yes(self.auto_stack_trace)).unwrap();
        if !self.locals.is_empty() {
            let names: Vec<_> = self.locals.iter().map(|n| if n.is_empty() { "_" } else { n }).collect();
            writeln!(text, "vars = {}", names.join(", ")).unwrap();
        }
        if !self.globals.is_empty() {
            let names: Vec<_> = self.globals.iter().map(|n| octal(n)).collect();
            writeln!(text, "globals = {}", names.join(", ")).unwrap();
        }
        for (name, kind, keys, entries) in &self.maps {
            let kind = match kind {
                MapKind::Linear { min, max, step } => {
                    // The least number is no literal.
                    format!("linear, step = {step}, max = {max}, min = {} - 1", i128::from(*min) + 1)
                }
                other => format!("{other:?}").to_lowercase(),
            };
            writeln!(text, "map {} = {kind}, keys = {keys}, entries = {entries}", octal(name)).unwrap();
        }
        let code = self.code();
        let mut lines = self.lines.iter().cycle();
        for (probe, range) in self.probes.iter().zip(&code.handlers) {
            probe.items(&mut text);
            let mut at = range.start;
            while at < range.end {
                match lines.next().unwrap() {
                    Some(n) => writeln!(text, "#line {n}").unwrap(),
                    None => writeln!(text, "#line 0").unwrap(),
                }
                at += self.instruction(&code, at, &mut text);
            }
        }
        text
    }

    /// Writes the instruction at an offset; returns its size.
    fn instruction(&self, code: &Code, at: u32, text: &mut String) -> u32 {
        let op = Op::from_byte(code.bytes[at as usize]).unwrap();
        let size = op.size() as u32;
        let mut word = [0; 8];
        let bytes = &code.bytes[at as usize + 1..(at + size) as usize];
        word[..bytes.len()].copy_from_slice(bytes);
        let n = u64::from_le_bytes(word);
        let operand = match op.info().operand {
            Operand::None => String::new(),
            Operand::Branch => {
                let target = i64::from(at + size) + i64::from(n as i32);
                assert!(code.starts.contains(&(target as u32)));
                format!("at{target}")
            }
            Operand::Reg => Reg::from_number(n as u16).unwrap().to_string(),
            Operand::S16 => (n as i16).to_string(),
            Operand::Local | Operand::Global | Operand::Map | Operand::Group | Operand::Facility => n.to_string(),
            Operand::U8 | Operand::U16 | Operand::Word => {
                match code.symbols.iter().find(|(offset, ..)| *offset == at + 1) {
                    Some((_, symbol, i64::MIN)) => format!("{} - {} - 1", octal(symbol), i64::MAX),
                    Some((_, symbol, addend)) => format!("{addend} + {}", octal(symbol)),
                    None => format!("0{n:o}"),
                }
            }
        };
        let separator = match (operand.is_empty(), op.info().selectors.is_empty()) {
            (true, _) => "",
            (false, true) => " ",
            (false, false) => ", ",
        };
        writeln!(text, "at{at}: {op}{separator}{operand}").unwrap();
        size
    }
}

impl Probe {
    /// A watchpoint only where there can be one.
    fn watchable(&mut self) {
        let Some(watch) = self.watch else { return };
        let (place, value, _) = &mut self.place;
        let fits = match watch.kind() {
            WatchKind::Execute => true,
            WatchKind::Io => *place == kind::ABSOLUTE,
            WatchKind::Write | WatchKind::ReadWrite => *place != kind::SOURCE,
        };
        if !fits {
            self.watch = None;
            return;
        }
        self.log_on_fault = false;
        if *place == kind::ABSOLUTE {
            *value -= *value % u64::from(watch.len());
            *value = match watch.kind() {
                WatchKind::Io => *value & 0xffff,
                _ => (value.cast_signed() << 8 >> 8).cast_unsigned(),
            };
        }
    }

    fn items(&self, text: &mut String) {
        let (k, value, symbol) = &self.place;
        let symbol = octal(symbol);
        match *k {
            kind::ABSOLUTE => writeln!(text, "address = {value:#x}"),
            kind::MODULE_OFFSET => writeln!(text, "offset = {value}"),
            kind::SYMBOL if value.cast_signed() < 0 => writeln!(text, "offset = {symbol} - {:#x} - 1", !value),
            kind::SYMBOL => writeln!(text, "offset = {value} + {symbol}"),
            _ => writeln!(text, "offset = {symbol} : {value}"),
        }
        .unwrap();
        let (pass, max) = self.counts;
        writeln!(text, "minor = {}\npass_count = {pass}\nmax_hits = {max}", self.minor).unwrap();
        writeln!(text, "group = {}\nsuspended = {}", self.group, yes(self.suspended())).unwrap();
        if let Some(watch) = self.watch {
            writeln!(text, "watch = {} {}", watch.kind().name(), watch.len()).unwrap();
        }
        writeln!(text, "logonfault = {}", yes(self.log_on_fault)).unwrap();
        if let Some(heap) = self.heap {
            writeln!(text, "heap = {heap}").unwrap();
        }
    }
}

fn yes(b: bool) -> &'static str {
    if b { "yes" } else { "no" }
}

/// A string of nothing but escapes.
fn octal(s: &str) -> String {
    let escapes: String = s.bytes().map(|b| format!("\\{b:03o}")).collect();
    format!("\"{escapes}\"")
}
