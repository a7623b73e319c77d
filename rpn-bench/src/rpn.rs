//! The interpreter of DProbes, with plain memory as the probed system.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Result, anyhow};
use dprobes::aggregate::Map;
use dprobes::record::element::PREFIX;
use dprobes::rpn::exception::Exception;
use dprobes::rpn::interp::{self, Dispatch, End, Env, Observer, PortWidth, Stack, TaskValues, Variables, Workspace};
use dprobes::rpn::object::{self, Object};
use dprobes::rpn::reg::Reg;
use dprobes::rpn::verify::{VerifyError, verify, verify_unfused};
use dprobes::rpn::{BadAddress, Program as Verified};
use rpn_asm::Options;
use zerocopy::{FromZeros, IntoBytes};

use crate::ground::{Ground, Observed};
use crate::measure::Contender;
use crate::programs::Program;

/// Where the ground is, for the program.
const BASE: u64 = 0xffff_8880_0000_0000;

/// A program, ready to run.
pub struct Interpreter {
    program: Verified,
    workspace: Box<Workspace>,
    variables: Vec<AtomicU64>,
    plain: Plain,
}

impl Interpreter {
    /// Assembles and verifies the program.
    pub fn new(program: &Program) -> Result<Self> {
        Self::verified_by(verify, program)
    }

    fn verified_by(verify: fn(&Object<'_>) -> Result<Verified, VerifyError>, program: &Program) -> Result<Self> {
        let assembled = rpn_asm::assemble(program.name, program.rpn, &Options::default())
            .map_err(|diagnostics| anyhow!("{diagnostics}"))?;
        let object = Object::parse(&assembled.object).map_err(|error| anyhow!("{error}"))?;
        let verified = verify(&object).map_err(|error| anyhow!("{error}"))?;
        let mut ground = Ground::new(program.registers);
        ground.registers[usize::from(Reg::Rsi.number())] = BASE + std::mem::offset_of!(Ground, string) as u64;
        let map = |described: object::Map<'_>| {
            let spec = described.spec().map_err(|error| anyhow!("{error:?}"))?;
            Map::new(spec, 1, 0).map_err(|error| anyhow!("{error:?}"))
        };
        let maps: Result<Vec<Map>> = object.maps().map(map).collect();
        Ok(Self {
            workspace: Workspace::new_box_zeroed().map_err(|_| anyhow!("out of memory"))?,
            variables: (0..verified.locals()).map(|_| AtomicU64::new(0)).collect(),
            program: verified,
            plain: Plain { ground, maps: maps? },
        })
    }

    /// Runs it once.
    pub fn observe(&mut self) -> Result<Observed> {
        let variables = Variables::of_locals(&self.variables);
        let outcome = interp::run(&self.program, 0, &mut self.workspace, &mut self.plain, &variables);
        let mut variables: Vec<u64> = self.variables.iter().map(|local| local.load(Relaxed)).collect();
        if let Some(map) = self.plain.maps.first() {
            let mut buckets = vec![0; map.spec().entry_bytes()];
            map.read(None, &mut buckets).map_err(|error| anyhow!("{error:?}"))?;
            variables = buckets
                .as_chunks()
                .0
                .iter()
                .map(|word| u64::from_le_bytes(*word))
                .collect();
        }
        variables.resize(crate::ground::VARIABLES, 0);
        Ok(Observed {
            published: outcome.end == End::Exit,
            log: self.workspace.log().get(PREFIX..).unwrap_or(&[]).to_vec(),
            variables,
        })
    }
}

/// How many instructions of a program are executed: somebody watches.
pub fn count(program: &Program) -> Result<u64> {
    struct Counter(u64);
    impl Observer for Counter {
        fn instruction(&mut self, _offset: u32, _stack: Stack<'_>) {
            self.0 += 1;
        }

        fn exception(&mut self, _exception: Exception, _to: Dispatch) {}
    }

    let mut machine = Interpreter::verified_by(verify_unfused, program)?;
    let mut counter = Counter(0);
    let variables = Variables::of_locals(&machine.variables);
    let (workspace, plain) = (&mut machine.workspace, &mut machine.plain);
    interp::run_observed(&machine.program, 0, workspace, plain, &variables, &mut counter);
    Ok(counter.0)
}

impl Contender for Interpreter {
    fn run(&mut self, times: u64) {
        let variables = Variables::of_locals(&self.variables);
        for _ in 0..times {
            let outcome = interp::run(&self.program, 0, &mut self.workspace, &mut self.plain, &variables);
            std::hint::black_box(&outcome);
        }
    }
}

struct Plain {
    ground: Box<Ground>,
    maps: Vec<Map>,
}

impl Plain {
    fn range(addr: u64, len: usize) -> std::ops::Range<usize> {
        let start = addr.wrapping_sub(BASE) as usize;
        start..start.saturating_add(len)
    }
}

impl Env for Plain {
    #[inline]
    fn reg(&self, reg: Reg) -> u64 {
        self.ground
            .registers
            .get(usize::from(reg.number()))
            .copied()
            .unwrap_or(0)
    }

    #[inline]
    fn set_reg(&mut self, reg: Reg, value: u64) {
        if let Some(register) = self.ground.registers.get_mut(usize::from(reg.number())) {
            *register = value;
        }
    }

    #[inline]
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), BadAddress> {
        let from = self.ground.as_bytes().get(Self::range(addr, buf.len()));
        buf.copy_from_slice(from.ok_or(BadAddress { addr })?);
        Ok(())
    }

    #[inline]
    fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<(), BadAddress> {
        let to = self.ground.as_mut_bytes().get_mut(Self::range(addr, bytes.len()));
        to.ok_or(BadAddress { addr })?.copy_from_slice(bytes);
        Ok(())
    }

    fn writable(&mut self, addr: u64) -> bool {
        self.readable(addr)
    }

    // There is nothing else but maps.

    fn user_reg(&mut self, _reg: Reg) -> Option<u64> {
        None
    }

    fn set_user_reg(&mut self, _reg: Reg, _value: u64) -> bool {
        false
    }

    fn system_reg(&mut self, _reg: Reg, _words: &mut [u64; 8]) -> bool {
        false
    }

    fn cpuid(&mut self, _leaf: u32, _subleaf: u32) -> [u32; 4] {
        [0; 4]
    }

    fn msr(&mut self, _number: u32) -> Option<u64> {
        None
    }

    fn port_read(&mut self, _port: u16, _width: PortWidth) -> Option<u32> {
        None
    }

    fn port_write(&mut self, _port: u16, _width: PortWidth, _value: u32) -> bool {
        false
    }

    fn task(&mut self) -> TaskValues {
        TaskValues::default()
    }

    fn cpu(&mut self) -> u32 {
        0
    }

    fn clock(&mut self) -> u64 {
        0
    }

    fn tsc(&mut self) -> u64 {
        0
    }

    fn kernel_stack(&mut self, _addresses: &mut [u64]) -> usize {
        0
    }

    fn user_stack(&mut self, _addresses: &mut [u64]) -> usize {
        0
    }

    #[inline]
    fn aggregate(&mut self, map: u16, keys: &[u64], value: u64) {
        if let Some(map) = self.maps.get(usize::from(map)) {
            map.update(0, keys, value);
        }
    }

    fn suspend(&mut self, _group: u16, _suspended: bool) {}
}
