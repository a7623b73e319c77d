//~ this hook is generic
use gkhi::{fire, hook};

hook! {
    static OPEN: generic fn(inode: u64) = "open";
}

fn main() {
    fire!(OPEN, 1);
}
