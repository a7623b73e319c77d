//! dprobes(1), from the command line.

use std::fmt::Write;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::{escape, literal};
use crate::args::Cli;

const FILES: &str = "\
.SH FILES
.TP
.I /dev/dprobes
the control device of the module; only root may open it
.TP
.I /proc/kallsyms
where addresses of symbols come from
.SH SEE ALSO
.BR dprobes\\-rpn (5)
";

/// The page: the command, then each of its commands.
pub fn page() -> String {
    let mut command = Cli::command();
    command.build();
    let mut out = format!(
        ".TH dprobes 1 \"\" \"dprobes {}\" \"User Commands\"\n",
        env!("CARGO_PKG_VERSION")
    );
    // clap_mangen's apostrophe.
    out.push_str(".ds Aq \\(aq\n.nh\n.ad l\n");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(
        out,
        ".SH NAME\ndprobes \\- {}",
        escape(&about.trim_end_matches('.').to_lowercase())
    );
    out.push_str(&synopsis(&command, ".SH SYNOPSIS"));
    out.push_str(".SH DESCRIPTION\n");
    out.push_str(&description(&command));
    out.push_str(&options(&command, ".SH OPTIONS"));
    let (examples, codes) = help(&command);
    out.push_str(".SH COMMANDS\n");
    for subcommand in command.get_subcommands().filter(|command| command.get_name() != "help") {
        let _ = writeln!(out, ".SS {}", escape(subcommand.get_name()));
        out.push_str(&description(subcommand));
        out.push_str(&synopsis(subcommand, ".PP\nUsage:"));
        out.push_str(&options(subcommand, ""));
        let (examples, _) = help(subcommand);
        if !examples.is_empty() {
            let _ = write!(out, ".PP\nExamples:\n{}", literal(&examples));
        }
    }
    let _ = write!(out, ".SH EXAMPLES\n{}", literal(&examples));
    let _ = write!(out, ".SH EXIT STATUS\n{}", literal(&codes));
    out.push_str(FILES);
    out
}

fn synopsis(command: &Command, heading: &str) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    format!("{heading}\n.PP\n.B {}\n", escape(usage))
}

fn description(command: &Command) -> String {
    let text = command.get_long_about().or(command.get_about());
    let text = text.map(ToString::to_string).unwrap_or_default();
    let paragraphs = text
        .split("\n\n")
        .map(|paragraph| format!(".PP\n{}\n", escape(paragraph.trim())));
    paragraphs.collect()
}

/// Options and arguments, as clap_mangen has them, without those that every command has.
fn options(command: &Command, heading: &str) -> String {
    let own = command.clone().mut_args(|argument| {
        let common = ["color", "help", "version"].contains(&argument.get_id().as_str()) && heading.is_empty();
        argument.hide(common)
    });
    let own = own.mut_args(|argument| {
        if argument.get_id() == "device" {
            argument.hide(true)
        } else {
            argument
        }
    });
    let mut bytes = Vec::new();
    Man::new(own)
        .render_options_section(&mut bytes)
        .expect("a vector takes bytes");
    let text = String::from_utf8(bytes).expect("a page is text");
    // Its headings, and a preamble that the page has once.
    let lines = text
        .lines()
        .filter(|line| !line.starts_with(".SH") && !line.starts_with(".ie") && !line.starts_with(".el"));
    let body: String = lines.map(|line| format!("{line}\n")).collect();
    if body.trim().is_empty() {
        return String::new();
    }
    match heading {
        "" => body,
        heading => format!("{heading}\n{body}"),
    }
}

/// The examples and the exit codes at the end of the help.
fn help(command: &Command) -> (String, String) {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (examples, codes) = text.split_once("Exit codes:").unwrap_or((&text, ""));
    let plain = |text: &str, title: &str| {
        let lines = text.trim_matches('\n').trim_start_matches(title).lines();
        lines
            .map(|line| line.strip_prefix("  ").unwrap_or(line))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let trim = |text: String| text.trim_matches('\n').to_owned();
    (trim(plain(examples, "Examples:")), trim(plain(codes, "")))
}
