//! Asking the module whether it would accept probes.

use std::fs::{File, OpenOptions};
use std::io;

use dprobes::wire::{CHECKS_MAX, CheckRequest, IOCTL_CHECK, PointCheck};
use rustix::ioctl::{Updater, ioctl};

/// The module, loaded into the running kernel.
#[derive(Debug)]
pub struct Module {
    device: File,
}

impl Module {
    /// Opens `/dev/dprobes`.
    ///
    /// # Errors
    /// What the system said: `NotFound` when the module is not loaded.
    pub fn open() -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/dprobes")?;
        Ok(Module { device })
    }

    /// What a probe at each address would come to.
    ///
    /// # Errors
    /// What the system said.
    pub fn check(&self, addresses: &[u64]) -> io::Result<Vec<PointCheck>> {
        let mut checks = Vec::from_iter(addresses.iter().map(|&address| PointCheck::of(address)));
        for some in checks.chunks_mut(CHECKS_MAX as usize) {
            let mut request = CheckRequest {
                checks: some.as_mut_ptr().expose_provenance() as u64,
                count: some.len() as u32,
                reserved: 0,
            };
            // SAFETY: the kernel reads the request, and reads and writes `count` checks at the address that is in it.
            unsafe { ioctl(&self.device, Updater::<IOCTL_CHECK, _>::new(&mut request)) }?;
        }
        Ok(checks)
    }

    /// Where the probes would go that ask for these addresses, those left out that would not be accepted.
    ///
    /// # Errors
    /// What the system said.
    pub fn accepted(&self, addresses: &[u64]) -> io::Result<Vec<u64>> {
        let checks = self.check(addresses)?.into_iter();
        Ok(checks
            .filter(|check| check.reason == 0)
            .map(|check| check.address)
            .collect())
    }
}
