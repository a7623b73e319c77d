//! Running the QEMU process.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

use crate::machine::Machine;
use crate::outcome::{Facts, Outcome, TRIPLE_FAULT};

/// Why a machine could not be run at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// QEMU could not be started.
    #[error("cannot start {}: {source} (is QEMU installed? Debian: qemu-system-x86)", qemu.display())]
    Start {
        /// The program.
        qemu: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Waiting for QEMU failed.
    #[error("cannot wait for QEMU: {0}")]
    Wait(io::Error),
    /// The serial output could not be passed on.
    #[error("cannot pass the guest's serial output on: {0}")]
    Output(io::Error),
}

/// What a run gave.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// All that the guest wrote to its serial port.
    pub serial: String,
    /// QEMU's standard error; CPU resets and triple faults with the registers among it.
    pub stderr: String,
    /// How long it took.
    pub elapsed: Duration,
}

impl Report {
    /// The registers at a triple fault, as QEMU prints them.
    pub fn triple_fault_registers(&self) -> Option<&str> {
        let at = self.stderr.find(TRIPLE_FAULT)?;
        Some(self.stderr[at..].trim_end())
    }
}

/// A running QEMU; it does not outlive this value.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine {
    /// Boots the machine and waits for its end. The serial output goes to `sink` as it comes, without carriage returns.
    ///
    /// QEMU ends with this process, whatever ends it.
    pub fn run(&self, sink: &mut dyn Write) -> Result<Report, Error> {
        let start = Instant::now();
        let deadline = start + self.time_limit;
        let silence_limit = self.silence_limit.unwrap_or(self.time_limit).min(self.time_limit);
        let mut qemu = self.spawn()?;
        let mut serial_pipe = qemu.0.stdout.take().expect("piped");
        let mut stderr_pipe = qemu.0.stderr.take().expect("piped");
        let stderr_reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            // What could be read before an error is still worth having.
            let _ = stderr_pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = serial_pipe.read(&mut buffer) {
                if sender.send(buffer[..len].to_vec()).is_err() {
                    break;
                }
            }
        });

        let mut serial = Vec::new();
        let timed_out = loop {
            let limit = if serial.is_empty() {
                silence_limit
            } else {
                self.time_limit
            };
            match receiver.recv_timeout((start + limit).saturating_duration_since(Instant::now())) {
                Ok(mut bytes) => {
                    bytes.retain(|&byte| byte != b'\r');
                    sink.write_all(&bytes)
                        .and_then(|()| sink.flush())
                        .map_err(Error::Output)?;
                    serial.append(&mut bytes);
                    if Instant::now() >= deadline {
                        break true;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break !wait_until(&mut qemu.0, deadline)?,
                Err(RecvTimeoutError::Timeout) => break true,
            }
        };
        if timed_out {
            // Fails only if it has ended meanwhile.
            let _ = qemu.0.kill();
        }
        let limit = if serial.is_empty() {
            silence_limit
        } else {
            self.time_limit
        };
        let status: ExitStatus = qemu.0.wait().map_err(Error::Wait)?;
        let stderr = stderr_reader.join().unwrap_or_default();
        let serial = String::from_utf8_lossy(&serial).into_owned();
        let outcome = Facts {
            ending: self.ending,
            status: status.code(),
            timed_out: timed_out.then_some(limit),
            stderr: &stderr,
            serial: &serial,
        }
        .outcome();
        Ok(Report {
            outcome,
            serial,
            stderr,
            elapsed: start.elapsed(),
        })
    }

    fn spawn(&self) -> Result<Qemu, Error> {
        let mut command = self.command();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let parent = getpid();
        let die_with_parent = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the request was made.
            if getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::ErrorKind::Interrupted.into())
            }
        };
        // SAFETY: the closure makes two system calls and neither allocates nor locks.
        unsafe { command.pre_exec(die_with_parent) };
        command.spawn().map(Qemu).map_err(|source| Error::Start {
            qemu: self.qemu.clone(),
            source,
        })
    }
}

/// Waits for `child`; false if it still runs at `deadline`.
fn wait_until(child: &mut Child, deadline: Instant) -> Result<bool, Error> {
    while child.try_wait().map_err(Error::Wait)?.is_none() {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(true)
}
