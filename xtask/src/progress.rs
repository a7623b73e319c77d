//! One line per step, with its time; the full output of each in `target/logs`.

use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::run::dies_with_us;
use crate::workspace::Workspace;

/// How much of a failed step's output is shown; all of it is in its log.
const SHOWN_ON_FAILURE: usize = 150;

/// Tells a person what is going on.
pub struct Progress {
    logs: PathBuf,
    verbose: bool,
    terminal: bool,
}

/// What a step printed and how it ended.
pub struct Output {
    /// Its standard output and standard error, as they came.
    pub text: String,
    /// Did it exit with 0?
    pub success: bool,
}

impl Progress {
    /// Progress on standard error, with logs in the workspace's `target/logs`.
    pub fn new(workspace: &Workspace, verbose: bool) -> Result<Self> {
        let logs = workspace.target.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        Ok(Self {
            logs,
            verbose,
            terminal: io::stderr().is_terminal() && !verbose,
        })
    }

    /// Runs a command as one step; an error, with the end of its output shown, when it fails.
    pub fn step(&self, name: &str, command: &mut Command) -> Result<Output> {
        let output = self.attempt(name, command)?;
        if !output.success {
            bail!("{name} failed");
        }
        Ok(output)
    }

    /// Runs a command as one step, whose failure is shown and left to the caller.
    pub fn attempt(&self, name: &str, command: &mut Command) -> Result<Output> {
        let log = self.log_path(name);
        let output = self.narrate(name, |say| {
            let output = capture(command, say)?;
            fs::write(&log, &output.text).with_context(|| format!("cannot write {}", log.display()))?;
            let success = output.success;
            Ok((output, success))
        })?;
        if !output.success && !self.verbose {
            self.show_end(&output.text, &log);
        }
        Ok(output)
    }

    /// Does something else as one step, which says what it is at, line by line, and with its result, whether it succeeded.
    pub fn narrate<T>(&self, name: &str, work: impl FnOnce(&mut dyn FnMut(&str)) -> Result<(T, bool)>) -> Result<T> {
        self.doing(name, "");
        let start = Instant::now();
        let result = work(&mut |line| {
            if self.verbose {
                eprintln!("{line}");
            } else {
                self.doing(name, line.trim());
            }
        });
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        let mark = if result.as_ref().is_ok_and(|(_, success)| *success) {
            "ok  "
        } else {
            "FAIL"
        };
        eprintln!("{clear}  {mark}  {name}  {:.1} s", start.elapsed().as_secs_f64());
        result.map(|(value, _)| value)
    }

    /// Where the output of a step is kept.
    pub fn log_path(&self, name: &str) -> PathBuf {
        let file: String = name
            .chars()
            .map(|c| if c.is_alphanumeric() || c == '.' { c } else { '-' })
            .collect();
        self.logs.join(format!("{file}.log"))
    }

    /// Shows the end of an output that explains a failure, and where the rest is.
    pub fn show_end(&self, text: &str, log: &Path) {
        let lines: Vec<&str> = text.lines().collect();
        let skipped = lines.len().saturating_sub(SHOWN_ON_FAILURE);
        // Steps that are done beside each other do not run into each other.
        let mut shown = io::stderr().lock();
        if skipped > 0 {
            let _ = writeln!(shown, "        ({skipped} lines before this are in {})", log.display());
        }
        for line in &lines[skipped..] {
            let _ = writeln!(shown, "        {line}");
        }
    }

    /// On a terminal, the current line of the current step, overwritten by the next.
    fn doing(&self, name: &str, what: &str) {
        if self.terminal {
            let width = rustix::termios::tcgetwinsize(io::stderr())
                .map_or(80, |size| usize::from(size.ws_col))
                .max(20);
            let line: String = format!("  ..    {name}  {what}")
                .chars()
                .filter(|c| !c.is_control())
                .take(width - 1)
                .collect();
            eprint!("\r\x1b[K{line}");
            let _ = io::stderr().flush();
        } else if self.verbose && what.is_empty() {
            eprintln!("  ..    {name}");
        }
    }
}

/// Runs a command to its end and hands its output over line by line.
fn capture(command: &mut Command, say: &mut dyn FnMut(&str)) -> Result<Output> {
    let (reader, writer) = io::pipe().context("cannot create a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = dies_with_us(command)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    // The command holds the pipe's writing end too; without it, the end of the output is the end of the pipe.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut text = String::new();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let shown = String::from_utf8_lossy(&line);
        say(shown.trim_end());
        text.push_str(&shown);
        line.clear();
    }
    let success = child.wait()?.success();
    Ok(Output { text, success })
}
