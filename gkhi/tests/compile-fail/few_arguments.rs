//~ closure is expected to take
use gkhi::{ExitWith, Flow, hook};

hook! {
    static OPEN: fn(inode: u64, flags: &mut u32) = "open";
}

static EXIT: ExitWith<()> = OPEN::exit(c"few", (), |_, _inode| Flow::Continue);

fn main() {}
