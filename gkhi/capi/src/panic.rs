//! A panic is a bug in this library. It stops the machine through the host.

use core::panic::PanicInfo;

use crate::failure::Message;
use crate::instance;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let message = Message::<240>::of(format_args!("gkhi: {info}"));
    if let Some(table) = instance::table() {
        // SAFETY: by `Table::check`; the bytes of the message may be read.
        unsafe { (table.panic)(message.bytes.as_ptr().cast(), message.len) };
    }
    // The host promised not to return from that; without a host there is nobody to tell.
    loop {
        core::hint::spin_loop();
    }
}
