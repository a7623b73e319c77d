//! The interpreter of DProbes, with plain memory as the probed system.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Result, anyhow};
use dprobes::record::element::PREFIX;
use dprobes::rpn::interp::{self, End, Env, PortWidth, TaskValues, Variables, Workspace};
use dprobes::rpn::object::Object;
use dprobes::rpn::reg::Reg;
use dprobes::rpn::verify::verify;
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
        let assembled = rpn_asm::assemble(program.name, program.rpn, &Options::default())
            .map_err(|diagnostics| anyhow!("{diagnostics}"))?;
        let object = Object::parse(&assembled.object).map_err(|error| anyhow!("{error}"))?;
        let verified = verify(&object).map_err(|error| anyhow!("{error}"))?;
        let mut ground = Ground::new(program.registers);
        ground.registers[usize::from(Reg::Rsi.number())] = BASE + std::mem::offset_of!(Ground, string) as u64;
        Ok(Self {
            workspace: Workspace::new_box_zeroed().map_err(|_| anyhow!("out of memory"))?,
            variables: (0..verified.locals()).map(|_| AtomicU64::new(0)).collect(),
            program: verified,
            plain: Plain(ground),
        })
    }

    /// Runs it once.
    pub fn observe(&mut self) -> Observed {
        let locals = Variables::of_locals(&self.variables);
        let outcome = interp::run(&self.program, 0, &mut self.workspace, &mut self.plain, &locals);
        let mut variables = vec![0; crate::ground::VARIABLES];
        for (to, from) in variables.iter_mut().zip(&self.variables) {
            *to = from.load(Relaxed);
        }
        Observed {
            published: outcome.end == End::Exit,
            log: self.workspace.log().get(PREFIX..).unwrap_or(&[]).to_vec(),
            variables,
        }
    }
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

struct Plain(Box<Ground>);

impl Plain {
    fn range(addr: u64, len: usize) -> std::ops::Range<usize> {
        let start = addr.wrapping_sub(BASE) as usize;
        start..start.saturating_add(len)
    }
}

impl Env for Plain {
    #[inline]
    fn reg(&self, reg: Reg) -> u64 {
        self.0.registers.get(usize::from(reg.number())).copied().unwrap_or(0)
    }

    #[inline]
    fn set_reg(&mut self, reg: Reg, value: u64) {
        if let Some(register) = self.0.registers.get_mut(usize::from(reg.number())) {
            *register = value;
        }
    }

    #[inline]
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), BadAddress> {
        let from = self.0.as_bytes().get(Self::range(addr, buf.len()));
        buf.copy_from_slice(from.ok_or(BadAddress { addr })?);
        Ok(())
    }

    #[inline]
    fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<(), BadAddress> {
        let to = self.0.as_mut_bytes().get_mut(Self::range(addr, bytes.len()));
        to.ok_or(BadAddress { addr })?.copy_from_slice(bytes);
        Ok(())
    }

    fn writable(&mut self, addr: u64) -> bool {
        self.readable(addr)
    }

    // There is nothing else.

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

    fn aggregate(&mut self, _map: u16, _keys: &[u64], _value: u64) {}

    fn suspend(&mut self, _group: u16, _suspended: bool) {}
}
