//~ type mismatch in function arguments
use gkhi::{ExitWith, Flow, hook};

hook! {
    static OPEN: fn(inode: u64, flags: &mut u32) = "open";
}

fn on_open(_: &(), _inode: u32, _flags: &mut u32) -> Flow {
    Flow::Continue
}

static EXIT: ExitWith<()> = OPEN::exit(c"wrong", (), on_open);

fn main() {}
