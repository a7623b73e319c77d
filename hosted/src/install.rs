//! The engine in charge of the process's traps.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use dprobes::host::Host as _;
use dprobes::probe::Engine;
use dprobes::wire::ProbeStatus;

use crate::process::Process;
use crate::record::Record;
use crate::signal::{self, ENGINE};

/// Is there an engine, or is one coming or going?
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Why the engine is not in charge.
#[derive(Debug)]
pub enum InstallError {
    /// There is one already: a process has one set of signal handlers.
    Installed,
    /// Memory is short.
    NoMemory,
    /// A signal could not be taken over.
    Signal(io::Error),
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InstallError::Installed => f.write_str("this process has an engine already"),
            InstallError::NoMemory => f.write_str("no memory for the engine"),
            InstallError::Signal(error) => write!(f, "a signal cannot be taken over: {error}"),
        }
    }
}

impl std::error::Error for InstallError {}

/// Makes an engine over `process`, and gives it the process's traps: SIGTRAP, SIGSEGV, SIGBUS, SIGFPE and SIGILL. What is not the
/// engine's goes on to who had the signal before.
///
/// # Errors
/// [`InstallError`].
pub fn install(process: Process) -> Result<Installed, InstallError> {
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return Err(InstallError::Installed);
    }
    let (handshake, on_alternate_stack) = (process.handshake_signal(), process.on_alternate_stack);
    let taken = Engine::new(process)
        .map_err(|_| InstallError::NoMemory)
        .and_then(|engine| {
            signal::take_over(handshake, on_alternate_stack).map_err(InstallError::Signal)?;
            Ok(Box::into_raw(Box::new(engine)))
        });
    match taken {
        Ok(engine) => {
            ENGINE.store(engine, Ordering::Release);
            // SAFETY: just made from a box, and freed by the drop of what is returned here alone.
            Ok(Installed {
                engine: unsafe { &*engine },
            })
        }
        Err(error) => {
            INSTALLED.store(false, Ordering::Release);
            Err(error)
        }
    }
}

/// An engine in charge of the process's traps. Dropping it removes all probes and gives the traps back.
pub struct Installed {
    engine: &'static Engine<Process>,
}

impl Installed {
    /// Takes all records out of the rings, those of one CPU after those of another, after making them final.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        self.settle();
        for cpu in 0..self.host().cpu_count() {
            loop {
                let len = self.read_records(cpu, &mut buffer);
                if len == 0 {
                    break;
                }
                records.extend(Record::parse_all(&buffer[..len]));
            }
        }
        records
    }

    /// The state of every probe.
    #[must_use]
    pub fn status(&self) -> Vec<ProbeStatus> {
        let mut all = Vec::new();
        self.query(&mut |status| all.push(*status));
        all
    }

    /// Disarms probes that are exhausted or have removed themselves, if there are any.
    pub fn reap_if_requested(&self) {
        if self.host().take_reap_request() {
            self.reap();
        }
    }
}

impl Deref for Installed {
    type Target = Engine<Process>;

    fn deref(&self) -> &Self::Target {
        self.engine
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // Breakpoints that cannot be taken out need their engine for as long as the process lives.
        if self.engine.remove_all().is_err() {
            return;
        }
        signal::give_back();
        ENGINE.store(ptr::null_mut(), Ordering::Release);
        let handshake = self.host().handshake_signal();
        self.host().sync_cores();
        // SAFETY: it was made from a box. No thread is in a trap handler with the old pointer: all have been seen outside
        // after it was taken away.
        drop(unsafe { Box::from_raw(ptr::from_ref(self.engine).cast_mut()) });
        // The engine has waited for threads until now.
        signal::end_handshakes(handshake);
        INSTALLED.store(false, Ordering::Release);
    }
}
