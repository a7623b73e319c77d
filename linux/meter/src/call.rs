//! What is called: a system call, or a function of this program.

use std::arch::naked_asm;
use std::fs::File;
use std::io;

use clap::Args;

/// Which call.
#[derive(Args)]
pub struct Wanted {
    /// A write of some words to a file, in the place of the read
    #[arg(long, num_args = 2.., value_names = ["FILE", "WORD"], conflicts_with = "function")]
    write: Option<Vec<String>>,

    /// The function `metered` of this program, in the place of the read
    #[arg(long)]
    function: bool,
}

/// A call, with what it needs.
pub enum Call {
    /// Reads a byte.
    Read(File),
    /// Writes a text.
    Write(File, String),
    /// Calls [`metered`].
    Function,
}

impl Wanted {
    /// Opens the file that it goes to.
    pub fn open(self) -> io::Result<Call> {
        match self.write {
            Some(words) => {
                let (file, words) = words.split_first().expect("clap takes two or more");
                Ok(Call::Write(File::options().write(true).open(file)?, words.join(" ")))
            }
            None if self.function => Ok(Call::Function),
            None => Ok(Call::Read(File::open("/dev/zero")?)),
        }
    }
}

impl Call {
    /// Makes it so many times.
    pub fn make(&self, times: u32) -> io::Result<()> {
        for _ in 0..times {
            match self {
                Self::Read(file) => drop(rustix::io::read(file, &mut [0; 1])?),
                Self::Write(file, text) => drop(rustix::io::write(file, text.as_bytes())?),
                Self::Function => metered(),
            }
        }
        Ok(())
    }
}

/// What is probed in user space. It begins with an instruction that the kernel's uprobes carry out themselves; the next one they step.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn metered() {
    naked_asm!("push rbp", "mov rbp, rsp", "pop rbp", "ret")
}
