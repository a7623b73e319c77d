//! Variables, as a table and as JSON.

use comfy_table::{Table, presets};
use dprobes::wire::{VARS_GLOBAL, VarStatus};
use serde::Serialize;

use super::escape::{Charset, name, trim};
use super::{columns, json, words};

#[derive(Serialize)]
struct Line<'a> {
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<std::borrow::Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    major: Option<u16>,
    index: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: std::borrow::Cow<'a, str>,
    value: String,
}

/// A variable as one line of JSON, with a line feed.
pub fn line(var: &VarStatus) -> String {
    let local = var.scope != VARS_GLOBAL;
    json::line(&Line {
        scope: if local { "local" } else { "global" },
        module: local.then(|| String::from_utf8_lossy(trim(&var.module))),
        major: local.then_some(var.major),
        index: var.index,
        name: String::from_utf8_lossy(trim(&var.name)),
        value: var.value.to_string(),
    })
}

/// Variables, one in a line. The last line has no line feed.
pub fn table(vars: &[VarStatus], charset: Charset) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["MODULE", "MAJOR", "INDEX", "NAME", "VALUE"]);
    for var in vars {
        let (module, major) = match var.scope {
            VARS_GLOBAL => ("(global)".to_owned(), String::new()),
            _ => (name(&var.module, charset), var.major.to_string()),
        };
        table.add_row([
            module,
            major,
            var.index.to_string(),
            name(&var.name, charset),
            words::word(var.value),
        ]);
    }
    columns::text(table, |index| (1..=2).contains(&index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dprobes::wire::{VARS_LOCAL, label};
    use pretty_assertions::assert_eq;

    fn samples() -> [VarStatus; 4] {
        let local = VarStatus {
            value: 12,
            index: 0,
            major: 3,
            scope: VARS_LOCAL,
            name: label(b"opens"),
            module: label(b"kernel"),
        };
        [
            local,
            VarStatus {
                index: 1,
                value: u64::MAX,
                name: label(b""),
                ..local
            },
            VarStatus {
                name: label(b"\x1b[2J\xff"),
                module: label(b"e1000"),
                ..local
            },
            VarStatus {
                value: 7,
                index: 10,
                major: 0,
                scope: VARS_GLOBAL,
                name: label(b"shared"),
                module: label(b""),
            },
        ]
    }

    #[test]
    fn a_table_has_a_line_for_each() {
        assert_eq!(
            table(&samples(), Charset::Ascii),
            r"MODULE    MAJOR  INDEX  NAME         VALUE
kernel        3      0  opens        0xc (12)
kernel        3      1               0xffffffffffffffff (-1)
e1000         3      0  \x1b[2J\xff  0xc (12)
(global)            10  shared       7"
        );
    }

    #[test]
    fn json_has_numbers_as_decimal_digits() {
        let lines: String = samples().iter().map(line).collect();
        assert_eq!(
            lines,
            r#"{"scope":"local","module":"kernel","major":3,"index":0,"name":"opens","value":"12"}
{"scope":"local","module":"kernel","major":3,"index":1,"value":"18446744073709551615"}
{"scope":"local","module":"e1000","major":3,"index":0,"name":"\u001b[2J\ufffd","value":"12"}
{"scope":"global","index":10,"name":"shared","value":"7"}
"#
        );
    }
}
