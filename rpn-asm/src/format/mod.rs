//! Program text in the customary layout.
//!
//! Works on the text as it stands, before the preprocessor. Nothing but white space changes, and every line stays the line it is, so that
//! line numbers in messages, records and objects stay what they are.

mod lines;
mod spacing;
mod statement;

use lines::{Content, Line};
use statement::Statements;

/// Where instructions begin.
const CODE: usize = 8;
/// Where comments behind statements begin.
const COMMENT: usize = 32;
/// The least room for the names of items: of the header, and of a probe.
const HEADER_WIDTH: usize = 7;
const PROBE_WIDTH: usize = 9;

/// Lays a program out: instructions in columns, items with their `=` under each other, comments behind statements in one column, one
/// space around operators and after commas.
///
/// What it returns assembles to the same object as the text, byte for byte, and formatting it again changes nothing. Preprocessor
/// lines, lines that go on in the next one, and what cannot be understood stay as they are, but for white space at their ends. So do
/// spaces between what may be arguments of a macro, because `#` can see them. (A macro of another file whose text has an opening
/// parenthesis without the closing one hides its arguments from this.)
///
/// ```
/// let text = "name=\"kernel\"\n\noffset =f+ 4\n minor=1\n push r,rax // result\nlog 1\nexit";
/// let tidy = "\
/// name    = \"kernel\"
///
/// offset    = f + 4
/// minor     = 1
///         push    r, rax          // result
///         log     1
///         exit
/// ";
/// assert_eq!(rpn_asm::format(text), tidy);
/// ```
#[must_use]
pub fn format(text: &str) -> String {
    let lines = lines::split(text);
    let keep = lines::hides_parentheses(&lines);
    let statements: Vec<_> = lines.iter().map(|line| Statements::read(line, keep)).collect();
    let code = statement::lay_out(&lines, &statements);
    // For each line whether the next statement is code; comments before it are indented with it.
    let mut code_follows = vec![None; lines.len()];
    let mut next = None;
    for (at, all) in statements.iter().enumerate().rev() {
        code_follows[at] = next;
        next = all.as_ref().map(Statements::is_code).or(next);
    }

    let mut out = Output::default();
    for ((line, code), code_follows) in lines.iter().zip(code).zip(code_follows) {
        match (&line.content, code) {
            (Content::Blank, _) => out.push(String::new()),
            (Content::Directive, _) => out.push(line.raw.clone()),
            (Content::Comment, _) => out.comment(line, code_follows),
            (Content::Code { comment, .. }, Some(code)) => out.code(code, comment.as_ref()),
            _ => out.push(" ".repeat(line.column) + &line.raw),
        }
    }
    out.finish(!text.ends_with('\\'))
}

#[derive(Default)]
struct Output {
    lines: Vec<String>,
    /// Where the comment of the line before began, and begins now. Comments alone on the lines below it go with it.
    moved: Option<(usize, usize)>,
}

impl Output {
    fn push(&mut self, line: String) {
        self.lines.push(line);
        self.moved = None;
    }

    fn code(&mut self, mut line: String, comment: Option<&lines::Comment>) {
        let mut moved = None;
        if let Some(comment) = comment {
            let width = line.chars().count();
            let column = COMMENT.max(width + 1);
            line.push_str(&" ".repeat(column - width));
            line.push_str(&comment.text);
            moved = Some((comment.column, column));
        }
        self.lines.push(line);
        self.moved = moved;
    }

    fn comment(&mut self, line: &Line, code_follows: Option<bool>) {
        let moved = self.moved.filter(|(from, _)| *from == line.column);
        let column = match moved {
            Some((_, to)) => to,
            None if line.column == 0 || code_follows == Some(false) => 0,
            None => CODE,
        };
        self.lines.push(" ".repeat(column) + &line.raw);
        self.moved = moved;
    }

    /// The text, without empty lines at its end. A last backslash must not get an end of line to join.
    fn finish(mut self, end: bool) -> String {
        while self.lines.last().is_some_and(String::is_empty) {
            self.lines.pop();
        }
        let mut text = self.lines.join("\n");
        if end && !self.lines.is_empty() {
            text.push('\n');
        }
        text
    }
}
