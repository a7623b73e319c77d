//~ no method named `__pass`
use gkhi::{fire, hook};

hook! {
    static OPEN: fn(inode: u64) -> i32 = "open";
}

fn main() {
    fire!(OPEN, 1);
}
