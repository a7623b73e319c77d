//! Many blocks at once: all run bare, then all with a probe on every instruction, with one program.

use std::collections::HashMap;
use std::hash::Hasher;
use std::ops::Range;

use dprobes::insn::Insn;
use dprobes::probe::{InsertError, PointError};
use dprobes::rpn::object::layout;
use hosted::{AlternateStack, Installed, Process};
use iced_x86::InstructionInfoFactory;

use crate::arena::{Arena, CODE};
use crate::block::{self, Block, LEAVING, decode};
use crate::coverage::Coverage;
use crate::exempt;
use crate::generate;
use crate::run::{self, Handlers, Outcome};
use crate::state::Start;

/// The program's major code.
const MAJOR: u16 = 1;

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// One block with what it is started with.
pub struct Case {
    pub block: Block,
    pub starts: Vec<Start>,
}

/// A start at which a block has not done the same.
pub struct Difference {
    pub block: Block,
    pub start: Start,
}

/// Counts.
#[derive(Default, Debug)]
pub struct Tally {
    pub blocks: u64,
    /// Runs of blocks, of which each is done twice.
    pub runs: u64,
    /// Runs that came to their end.
    pub completed: u64,
    /// Runs that a signal ended.
    pub raised: u64,
    /// Probes.
    pub probes: u64,
    /// Instructions executed with a probe: completed.
    pub hits: u64,
    /// Instructions executed with a probe: faulted.
    pub faulted: u64,
    /// Runs that had to be ended.
    pub endless: u64,
    /// Differences that are none, because the kernel forgets a step behind an instruction that it carries out itself.
    pub lost_steps: u64,
    /// Differences that are none, because the block reads where breakpoints are.
    pub reads_code: u64,
    /// Differences that are none, because the block went on into another one of its batch.
    pub strays: u64,
}

impl Tally {
    /// Instructions executed with a probe.
    pub fn executed(&self) -> u64 {
        self.hits + self.faulted
    }
}

/// The engine, the memory, and what has been seen.
pub struct Bench {
    pub arena: Arena,
    pub coverage: Coverage,
    pub tally: Tally,
    /// What the engine has refused although the decoder knows a way, so that it is not tried again.
    known_refusals: HashMap<Vec<u8>, String>,
    /// `DPROBES_INSN_SHOW`: each block is shown before it runs, should the process not survive it.
    show: bool,
    template: Template,
    factory: InstructionInfoFactory,
    engine: Installed,
    _handlers: Handlers,
    _stack: AlternateStack,
}

impl Bench {
    pub fn new() -> Self {
        let stack = AlternateStack::new().unwrap();
        let handlers = Handlers::install();
        let process = Process::new().unwrap().on_alternate_stack();
        let process = process.with_slots(CODE.len() / 2).unwrap().with_cpus(1);
        Bench {
            arena: Arena::new(),
            coverage: Coverage::new(),
            tally: Tally::default(),
            known_refusals: HashMap::new(),
            show: std::env::var_os("DPROBES_INSN_SHOW").is_some(),
            template: Template::new(),
            factory: InstructionInfoFactory::new(),
            engine: hosted::install(process).unwrap(),
            _handlers: handlers,
            _stack: stack,
        }
    }

    /// Runs blocks, which are packed one behind the other, and returns those that were not the same.
    pub fn compare(&mut self, cases: &[Case]) -> Vec<Difference> {
        self.place(cases.iter().map(|case| &case.block));
        let bare = self.run_all(cases, None);
        let probed = self.probe(cases.iter().map(|case| &case.block));
        let with_probes = self.run_all(cases, Some(&bare));
        self.unprobe(cases, probed);
        let mut differences = Vec::new();
        let (mut bare, mut with_probes) = (bare.into_iter(), with_probes.into_iter());
        for case in cases {
            for start in &case.starts {
                let (bare, probed) = (bare.next().unwrap(), with_probes.next().unwrap());
                self.count(&case.block, &bare);
                if bare.is_endless() {
                    self.tally.endless += 1;
                    continue;
                }
                if bare.hash == probed.hash {
                    continue;
                }
                if self.reads_code(&case.block, start) {
                    self.tally.reads_code += 1;
                } else if self.strays(cases, &case.block, start) && self.is_same_alone(&case.block, start) {
                    self.tally.strays += 1;
                } else {
                    differences.push(Difference {
                        block: case.block.clone(),
                        start: start.clone(),
                    });
                }
            }
        }
        differences
    }

    /// One block at one start, bare and probed, with probes at the instructions that `wanted` says; all of both is shown.
    pub fn compare_one(
        &mut self,
        block: &Block,
        start: &Start,
        wanted: &dyn Fn(usize) -> bool,
    ) -> [(Outcome, Vec<u8>); 2] {
        self.place([block].into_iter());
        let bare = self.run_one(block, start);
        let offsets: Vec<usize> = block.offsets().filter(|offset| wanted(*offset)).collect();
        let probed = self.probe_at(block_ranges([block].into_iter(), &self.arena), offsets);
        let with_probes = self.run_one(block, start);
        self.remove(probed, |_, _, _| {});
        [bare, with_probes]
    }

    fn place<'b>(&mut self, blocks: impl Iterator<Item = &'b Block>) {
        let mut image = vec![0xcc; CODE.len()];
        let mut end = 0;
        for block in blocks {
            let code = block.code();
            image[block.at..][..code.len()].copy_from_slice(&code);
            end = end.max(block.at + code.len());
        }
        self.arena.write_code(0, &image[..end]);
    }

    /// Runs all, but what was endless in an earlier run.
    fn run_all(&mut self, cases: &[Case], earlier: Option<&[Summary]>) -> Vec<Summary> {
        let mut summaries = Vec::with_capacity(cases.len() * 4);
        for case in cases {
            for start in &case.starts {
                let earlier = earlier.map(|earlier| earlier[summaries.len()]);
                summaries.push(match earlier {
                    Some(earlier) if earlier.is_endless() => earlier,
                    _ => self.summary(&case.block, start),
                });
            }
        }
        summaries
    }

    fn run(&mut self, block: &Block, start: &Start) -> Outcome {
        if self.show {
            eprintln!("{}{start:x?}\n", block.show(&self.arena));
        }
        self.arena.set_memory(start.memory);
        let mut outcome = run::run(start, self.arena.address(block.at));
        let last = block.instructions.last().expect("a block has instructions");
        let instruction = decode(last, self.arena.address(block.at + block.len() - last.len()));
        if exempt::varying(&instruction).is_some() {
            let written = exempt::written(&instruction, &outcome.state.registers, &mut self.factory);
            for register in written.registers {
                outcome.state.registers[register] = 0;
            }
            if written.flags {
                outcome.state.flags = 0;
            }
            if let Some(memory) = written.memory {
                self.arena.forget(memory);
            }
        }
        outcome
    }

    fn run_one(&mut self, block: &Block, start: &Start) -> (Outcome, Vec<u8>) {
        let outcome = self.run(block, start);
        (outcome, self.arena.memory().concat())
    }

    fn summary(&mut self, block: &Block, start: &Start) -> Summary {
        let outcome = self.run(block, start);
        let mut hash = Hash::default();
        hash.write(outcome.state.bytes());
        for part in self.arena.memory() {
            hash.write(part);
        }
        if let Some(signal) = outcome.signal {
            hash.write_u64(signal.number as u64);
            hash.write_u64(signal.code as u64);
            hash.write_u64(signal.address);
            hash.write_u64(signal.rip);
        }
        Summary {
            hash: hash.finish(),
            signal: outcome.signal.map(|signal| (signal.number, signal.rip)),
        }
    }

    fn count(&mut self, block: &Block, bare: &Summary) {
        self.tally.runs += 1;
        let Some((number, rip)) = bare.signal else {
            self.tally.completed += 1;
            return;
        };
        self.tally.raised += 1;
        if let Some(offset) = self.arena.offset(rip)
            && let Some(code) = block.kind_at(offset, &self.arena)
        {
            let seen = self.coverage.of(code);
            if number == libc::SIGILL {
                seen.undefined += 1;
            } else {
                seen.raised += 1;
            }
        }
    }

    /// Puts a probe on every instruction that is not refused.
    fn probe<'b>(&mut self, blocks: impl Iterator<Item = &'b Block> + Clone) -> bool {
        let mut offsets = Vec::new();
        for block in blocks.clone() {
            self.tally.blocks += 1;
            for (instruction, offset) in block.instructions.iter().zip(block.offsets()) {
                if offset == block.at && *instruction == ENDBR64 {
                    // Its probe would go to the next instruction, which has one.
                    continue;
                }
                match Insn::decode(instruction) {
                    Ok(insn) if insn.len() == instruction.len() => match insn.resume() {
                        Err(refusal) => self.refused(block, offset, format!("{refusal:?}")),
                        Ok(_) => match self.known_refusals.get(instruction) {
                            Some(why) => self.refused(block, offset, why.clone()),
                            None => offsets.push(offset),
                        },
                    },
                    // What this engine's decoder does not know ends a block: nothing behind it can be probed either.
                    Ok(_) => break,
                    Err(_) => {
                        *self.coverage.refusals.entry("not an instruction".into()).or_default() += 1;
                        break;
                    }
                }
            }
        }
        let ranges = block_ranges(blocks.clone(), &self.arena);
        let mut refusals = Vec::new();
        let inserted = self.insert(ranges, offsets, &mut refusals);
        for (offset, why) in refusals {
            let in_block = |block: &&Block| block.offsets().any(|at| at == offset);
            if let Some(block) = blocks.clone().find(in_block) {
                let index = block.offsets().position(|at| at == offset).unwrap_or(0);
                self.known_refusals
                    .insert(block.instructions[index].clone(), why.clone());
                self.refused(block, offset, why);
            }
        }
        inserted
    }

    fn refused(&mut self, block: &Block, offset: usize, why: String) {
        *self.coverage.refusals.entry(why).or_default() += 1;
        if let Some(code) = block.kind_at(offset, &self.arena) {
            self.coverage.of(code).refused += 1;
        }
    }

    fn probe_at(&mut self, ranges: Vec<Range<u64>>, offsets: Vec<usize>) -> bool {
        let probeable = |offset: &usize| {
            let address = self.arena.address(*offset);
            // SAFETY: code of the arena, of which no block is longer than what is left of it.
            let bytes = unsafe { std::slice::from_raw_parts(address as *const u8, 15) };
            Insn::decode(bytes).is_ok_and(|insn| insn.resume().is_ok())
        };
        let first = ranges[0].start;
        // SAFETY: as above.
        let begins_with_endbr = unsafe { std::slice::from_raw_parts(first as *const u8, 4) } == ENDBR64;
        let behind = |offset: &usize| !begins_with_endbr || self.arena.address(*offset) != first;
        let offsets = offsets.into_iter().filter(behind).filter(probeable).collect();
        self.insert(ranges, offsets, &mut Vec::new())
    }

    /// Inserts the program; false when there is nothing to be probed.
    fn insert(
        &mut self,
        ranges: Vec<Range<u64>>,
        mut offsets: Vec<usize>,
        refusals: &mut Vec<(usize, String)>,
    ) -> bool {
        self.engine.host().register_functions("blocks", ranges);
        while !offsets.is_empty() {
            let addresses = offsets.iter().map(|offset| self.arena.address(*offset));
            match self.engine.insert(&self.template.object(addresses)) {
                Ok(()) => {
                    self.tally.probes += offsets.len() as u64;
                    return true;
                }
                Err(InsertError::Point {
                    point,
                    error: PointError::Instruction { refusal, .. },
                    ..
                }) => refusals.push((offsets.remove(point), format!("{refusal:?}"))),
                Err(error) => panic!("{error:?}"),
            }
        }
        self.engine.host().unregister_code("blocks");
        false
    }

    fn unprobe(&mut self, cases: &[Case], inserted: bool) {
        // In the order of the code.
        let mut kinds = Vec::new();
        for case in cases {
            for (instruction, offset) in case.block.instructions.iter().zip(case.block.offsets()) {
                kinds.push((offset, decode(instruction, self.arena.address(offset)).code()));
            }
        }
        let mut counts = Vec::new();
        self.remove(inserted, |address, hits, faulted| counts.push((address, hits, faulted)));
        for (address, hits, faulted) in counts {
            self.tally.hits += hits;
            self.tally.faulted += faulted;
            let offset = self.arena.offset(address).expect("an address of the arena");
            if let Ok(index) = kinds.binary_search_by_key(&offset, |kind| kind.0) {
                self.coverage.of(kinds[index].1).completed += hits;
            }
        }
    }

    fn remove(&mut self, inserted: bool, mut visit: impl FnMut(u64, u64, u64)) {
        if !inserted {
            return;
        }
        self.engine
            .remove(b"kernel", MAJOR, &mut |probe| {
                assert_eq!((probe.missed, probe.late, probe.exceptions), (0, 0, 0), "{probe:?}");
                visit(probe.address, probe.hits, probe.faulted);
            })
            .unwrap();
        self.engine.host().unregister_code("blocks");
    }

    /// Does the block, with the others of its batch in place, go on into one of them? It may get there inside an instruction, and
    /// executes the breakpoints of those behind as bytes of others.
    fn strays(&mut self, cases: &[Case], block: &Block, start: &Start) -> bool {
        self.place(cases.iter().map(|case| &case.block));
        self.arena.set_memory(start.memory);
        let code = self.arena.address(CODE.start)..self.arena.address(CODE.end);
        let begin = self.arena.address(block.at);
        let own = begin..begin + (block.len() + LEAVING) as u64;
        let steps = run::trace(start, begin);
        steps.iter().any(|(rip, _)| code.contains(rip) && !own.contains(rip))
    }

    /// Is it the same with nothing but the block in place?
    fn is_same_alone(&mut self, block: &Block, start: &Start) -> bool {
        let [bare, probed] = self.compare_one(block, start, &|_| true);
        bare == probed
    }

    /// Does the block read or write where breakpoints are?
    pub fn reads_code(&mut self, block: &Block, start: &Start) -> bool {
        self.place([block].into_iter());
        self.arena.set_memory(start.memory);
        let code = self.arena.address(CODE.start)..self.arena.address(CODE.end);
        let steps = run::trace(start, self.arena.address(block.at));
        let place = |rip| block.offsets().position(|at| self.arena.address(at) == rip);
        let steps: Vec<_> = steps
            .into_iter()
            .filter_map(|(rip, registers)| Some((place(rip)?, registers)))
            .collect();
        let factory = &mut self.factory;
        let mut touches = |index: usize, registers: &[u64; 16]| {
            let at = block.offsets().nth(index).unwrap_or(block.at);
            let instruction = decode(&block.instructions[index], self.arena.address(at));
            factory.info(&instruction).used_memory().iter().any(|memory| {
                let value = |register, _, _| Some(exempt::value(register, registers));
                // A vector's elements, a string's parts and images are longer than what is said of them.
                let address = memory.virtual_address(0, value);
                address.is_some_and(|address| address < code.end && address.saturating_add(4096) > code.start)
            })
        };
        steps.into_iter().any(|(index, registers)| {
            // Behind what loads the flags, no step is shown: it may be any of the others.
            let hidden = hides_a_step(&block.instructions[index]);
            touches(index, &registers)
                || hidden && (0..block.instructions.len()).any(|index| touches(index, &registers))
        })
    }
}

/// Is the instruction behind this one executed without a trap before it, although TF is set when it ends?
fn hides_a_step(bytes: &[u8]) -> bool {
    use iced_x86::Mnemonic as M;
    matches!(
        decode(bytes, 0).mnemonic(),
        M::Popf | M::Popfq | M::Iretq | M::Iretd | M::Iret | M::Syscall | M::Int | M::Mov | M::Pop | M::Lss
    )
}

fn block_ranges<'b>(blocks: impl Iterator<Item = &'b Block>, arena: &Arena) -> Vec<Range<u64>> {
    blocks
        .map(|block| {
            let start = arena.address(block.at);
            start..start + (block.len() + LEAVING) as u64
        })
        .collect()
}

/// Bytes of a block, at most: parts are at most as long as the longest sequence.
const LONGEST_BLOCK: usize = (generate::LONGEST as usize + 1) * 8 * 15;

/// Packs blocks from a source until the code is full, or there are no more.
pub fn pack(mut next: impl FnMut(usize) -> Option<Case>) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut at = 0;
    while block::fits(at, LONGEST_BLOCK) {
        let Some(case) = next(at) else { break };
        at += case.block.len() + LEAVING;
        cases.push(case);
    }
    cases
}

/// What is kept of a run.
#[derive(Clone, Copy)]
struct Summary {
    hash: u64,
    signal: Option<(i32, u64)>,
}

impl Summary {
    fn is_endless(&self) -> bool {
        self.signal.is_some_and(|(number, _)| number == libc::SIGALRM)
    }
}

/// A hash of 64 bits that is fast on long slices: two lanes of multiplication and folding.
#[derive(Default)]
struct Hash(u64, u64);

impl Hasher for Hash {
    fn write(&mut self, bytes: &[u8]) {
        let fold = |a: u64, b: u64| {
            let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xbf58_476d_1ce4_e5b9);
            product as u64 ^ (product >> 64) as u64
        };
        for chunk in bytes.chunks(16) {
            let mut words = [0; 16];
            words[..chunk.len()].copy_from_slice(chunk);
            let word = |at: usize| u64::from_le_bytes(words[at..at + 8].try_into().expect("eight bytes"));
            // The sum keeps apart what multiplication with zero would make the same.
            self.0 = fold(self.0 ^ word(0), word(8)).wrapping_add(self.0.rotate_left(23));
            self.1 = self.1.rotate_left(11).wrapping_mul(0x94d0_49bb_1331_11eb)
                ^ word(0).wrapping_add(word(8).rotate_left(32));
        }
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.1
    }
}

/// A program with as many points as are asked for, all with one handler.
struct Template {
    header: layout::Header,
    point: layout::Point,
    /// What is behind the points: the variable, the code and the strings.
    rest: Vec<u8>,
}

impl Template {
    fn new() -> Self {
        use zerocopy::FromBytes;
        let text = format!(
            "name = \"kernel\"\nmodtype = kernel\nmajor = {MAJOR}\nvars = a\naddress = 1\nminor = 1\ninc lv, a\nabort\n"
        );
        let object = rpn_asm::assemble("block.rpn", &text, &rpn_asm::Options::default())
            .unwrap()
            .object;
        let (header, rest) = layout::Header::read_from_prefix(&object).unwrap();
        let (point, rest) = layout::Point::read_from_prefix(rest).unwrap();
        let mut template = Template {
            header,
            point,
            rest: rest.to_vec(),
        };
        template.header.lines = 0.into();
        template.point.display = layout::Str::default();
        let lines = header.lines.get() as usize * size_of::<layout::Line>();
        let variables = header.locals.get() as usize * size_of::<layout::Str>();
        template.rest.drain(variables..variables + lines);
        template
    }

    fn object(&self, addresses: impl ExactSizeIterator<Item = u64>) -> Vec<u8> {
        use zerocopy::IntoBytes;
        const CHECKSUM_AT: usize = 16;
        let len = size_of::<layout::Header>() + addresses.len() * size_of::<layout::Point>() + self.rest.len();
        let mut header = self.header;
        header.points = (addresses.len() as u32).into();
        header.total_len = (len as u32).into();
        header.checksum = 0.into();
        let mut object = Vec::with_capacity(len);
        object.extend(header.as_bytes());
        for address in addresses {
            let mut point = self.point;
            point.value = address.into();
            object.extend(point.as_bytes());
        }
        object.extend(&self.rest);
        let checksum = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&object);
        object[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
        object
    }
}
