//~ expected `Flow`
use gkhi::{ExitWith, Verdict, hook};

hook! {
    static OPEN: fn(inode: u64) = "open";
}

static EXIT: ExitWith<()> = OPEN::exit(c"returns", (), |_, _inode| Verdict::Return(1));

fn main() {}
