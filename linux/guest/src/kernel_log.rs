//! What the kernel says, while it is kept from ending the machine over it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;

use rustix::fs::{OFlags, fcntl_setfl};

/// Keeps the kernel from ending the machine, and its report from the console, where it would be taken for a failure.
struct Quiet {
    printk: String,
    panic_on_oops: String,
}

const PRINTK: &str = "/proc/sys/kernel/printk";
const PANIC_ON_OOPS: &str = "/proc/sys/kernel/panic_on_oops";

impl Quiet {
    fn begin() -> io::Result<Self> {
        let quiet = Quiet {
            printk: fs::read_to_string(PRINTK)?,
            panic_on_oops: fs::read_to_string(PANIC_ON_OOPS)?,
        };
        fs::write(PRINTK, "0")?;
        fs::write(PANIC_ON_OOPS, "0")?;
        Ok(quiet)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = fs::write(PANIC_ON_OOPS, &self.panic_on_oops);
        let _ = fs::write(PRINTK, &self.printk);
    }
}

/// What the kernel says while something is done, a line a message.
pub fn during<T>(action: impl FnOnce() -> T) -> io::Result<(String, T)> {
    let mut log = File::open("/dev/kmsg")?;
    fcntl_setfl(log.as_fd(), OFlags::NONBLOCK)?;
    log.seek(SeekFrom::End(0))?;
    let quiet = Quiet::begin()?;
    let result = action();
    drop(quiet);
    let mut report = String::new();
    let mut line = vec![0; 8192];
    while let Ok(length) = log.read(&mut line) {
        let text = String::from_utf8_lossy(&line[..length]);
        // Behind the head of each line, and without what belongs to it but is not the message.
        if let Some((_, message)) = text.split_once(';') {
            report.extend([message.lines().next().unwrap_or(""), "\n"]);
        }
    }
    Ok((report, result))
}
