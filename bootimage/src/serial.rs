//! The first serial port: the kernel's console.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU32, Ordering};

use uart_16550::backend::PioBackend;
use uart_16550::{Config, Uart16550};
use x86_64::instructions::interrupts;

const COM1: u16 = 0x3f8;
const NOBODY: u32 = u32::MAX;

/// The CPU that is printing.
static OWNER: AtomicU32 = AtomicU32::new(NOBODY);

struct Port(Uart16550<PioBackend>);

impl Port {
    fn com1() -> Option<Self> {
        // SAFETY: COM1 is this kernel's alone. Several handles exist only one at a time (`OWNER`), but for a trap that prints on the CPU
        // it interrupted, where the worst is mixed text: the device takes one byte at a time.
        unsafe { Uart16550::new_port(COM1) }.ok().map(Self)
    }
}

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(body) => {
                    self.0.send_bytes_exact(body.as_bytes());
                    self.0.send_bytes_exact(b"\r\n");
                }
                None => self.0.send_bytes_exact(line.as_bytes()),
            }
        }
        Ok(())
    }
}

/// Sets the port to 115200 baud, 8N1. Without a port, printing later waits for nothing and nobody reads it.
pub(crate) fn init() {
    if let Some(mut port) = Port::com1() {
        let _ = port.0.init(Config::default());
    }
}

/// Prints with interrupts masked, one message at a time over all CPUs. A trap that interrupts a print on its own CPU prints into the middle
/// of it rather than wait for ever. Use [`crate::println!`].
pub fn print(args: fmt::Arguments<'_>) {
    interrupts::without_interrupts(|| {
        let me = crate::percpu::cpu_id() as u32;
        let nested = loop {
            match OWNER.compare_exchange_weak(NOBODY, me, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => break false,
                Err(owner) if owner == me => break true,
                Err(_) => core::hint::spin_loop(),
            }
        };
        if let Some(mut port) = Port::com1() {
            let _ = port.write_fmt(args);
        }
        if !nested {
            OWNER.store(NOBODY, Ordering::Release);
        }
    });
}

/// Prints to the serial console, formatted.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::serial::print(::core::format_args!($($arg)*)) };
}

/// Prints a line to the serial console, formatted. Lines of several CPUs do not mix.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::serial::print(::core::format_args!("{}\n", ::core::format_args!($($arg)*))) };
}
