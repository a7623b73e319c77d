//! A panic is a bug in this library, and cannot be reached from a trap. It stops the machine through the host.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use crate::host;

/// A message on the stack; what does not fit is cut off.
struct Message {
    bytes: [u8; 240],
    len: usize,
}

impl Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = self.bytes.get_mut(self.len..).unwrap_or(&mut []);
        for (to, from) in free.iter_mut().zip(text.bytes()) {
            *to = from;
            self.len += 1;
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut message = Message {
        bytes: [0; 240],
        len: 0,
    };
    // Writing to a `Message` cannot fail.
    let _ = write!(message, "dprobes: {info}");
    if let Some(table) = host::table() {
        // SAFETY: by `Table::check`; `len` bytes of the message may be read.
        unsafe { (table.panic)(message.bytes.as_ptr().cast(), message.len) };
    }
    // The host promised not to return from that; without a host there is nobody to tell.
    loop {
        core::hint::spin_loop();
    }
}
