//! dprobes-rpn(5), from docs/language.md.

use std::fmt::Write;

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::{escape, literal};

const BEFORE: &str = "\
.nh
.ad l
.SH NAME
dprobes\\-rpn \\- the language of probe programs
.SH DESCRIPTION
";

const AFTER: &str = "\
.SH SEE ALSO
.BR dprobes (1)
";

/// The page of a document whose first heading is its title.
pub fn page(document: &str) -> String {
    let title = format!(
        ".TH dprobes\\-rpn 5 \"\" \"dprobes {}\" \"File Formats\"\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut page = Page::default();
    for event in Parser::new_ext(document, Options::ENABLE_TABLES) {
        page.event(event);
    }
    format!("{title}{BEFORE}{}{AFTER}", page.out)
}

#[derive(Default)]
struct Page {
    out: String,
    /// What stands between the tags that are open.
    text: String,
    /// The text is to be printed as it is.
    code: bool,
    /// The first heading is the title.
    titled: bool,
    /// Depth of lists.
    lists: usize,
    /// A table: titles, then the cells of the row that is open.
    titles: Vec<String>,
    cells: Vec<String>,
}

impl Page {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(Tag::CodeBlock(_)) => self.code = true,
            Event::Start(Tag::Heading { .. }) => self.text.clear(),
            Event::Start(Tag::List(_)) => {
                self.flush();
                self.lists += 1;
            }
            Event::Start(Tag::Item) => self.text.clear(),
            Event::Start(Tag::Table(_)) => self.titles.clear(),
            Event::Start(Tag::TableHead | Tag::TableRow) => self.cells.clear(),
            Event::Start(Tag::TableCell | Tag::Paragraph) => self.text.clear(),
            Event::Start(Tag::Emphasis) => self.text.push_str("\\fI"),
            Event::Start(Tag::Strong) => self.text.push_str("\\fB"),
            Event::End(TagEnd::Emphasis | TagEnd::Strong) => self.text.push_str("\\fR"),
            Event::End(tag) => self.end(tag),
            Event::Code(code) => {
                let _ = write!(self.text, "\\fB{}\\fR", escape(&code));
            }
            Event::Text(text) if self.code => self.text.push_str(&text),
            Event::Text(text) => self.text.push_str(&escape(&text)),
            Event::SoftBreak => self.text.push('\n'),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::CodeBlock => {
                self.code = false;
                let text = std::mem::take(&mut self.text);
                self.out.push_str(&literal(&text));
            }
            TagEnd::Heading(level) => {
                let text = std::mem::take(&mut self.text);
                if !std::mem::replace(&mut self.titled, true) {
                    return;
                }
                let _ = match level {
                    HeadingLevel::H1 | HeadingLevel::H2 => writeln!(self.out, ".SH \"{}\"", text.to_uppercase()),
                    _ => writeln!(self.out, ".SS \"{text}\""),
                };
            }
            TagEnd::Paragraph if self.lists == 0 => self.flush(),
            TagEnd::Item => {
                let text = std::mem::take(&mut self.text);
                if !text.trim().is_empty() {
                    let _ = writeln!(self.out, ".IP \\(bu 2\n{}", text.trim());
                }
            }
            TagEnd::List(_) => self.lists -= 1,
            TagEnd::TableCell => self.cells.push(std::mem::take(&mut self.text)),
            TagEnd::TableHead => self.titles = std::mem::take(&mut self.cells),
            TagEnd::TableRow => self.row(),
            _ => {}
        }
    }

    /// A paragraph.
    fn flush(&mut self) {
        let text = std::mem::take(&mut self.text);
        if !text.trim().is_empty() {
            let _ = writeln!(self.out, ".PP\n{}", text.trim());
        }
    }

    /// A row of a table: the first cell, and below it the others, those from the third on with their titles.
    fn row(&mut self) {
        let cells = std::mem::take(&mut self.cells);
        let mut cells = cells
            .iter()
            .zip(&self.titles)
            .map(|(cell, title)| (cell.trim(), title.trim()));
        let Some((first, _)) = cells.next() else { return };
        let first = if first.is_empty() { "\\ " } else { first };
        let _ = writeln!(self.out, ".TP\n{first}");
        let mut body = Vec::new();
        for (number, (cell, title)) in cells.enumerate() {
            if cell.is_empty() {
                continue;
            }
            body.push(match (number, title) {
                (0, _) | (_, "") => cell.to_owned(),
                (_, "what it does" | "what it keeps of the values with the same keys") => cell.to_owned(),
                (_, title) => format!("({title}: {cell})"),
            });
        }
        let _ = writeln!(self.out, "{}", body.join("\n.br\n"));
    }
}
