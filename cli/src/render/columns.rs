//! A table of columns with nothing but space between them.

use comfy_table::{CellAlignment, Table};

/// The lines of a table, with these columns flush right. The last one has no line feed.
pub fn text(mut table: Table, is_right: impl Fn(usize) -> bool) -> String {
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if is_right(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}
