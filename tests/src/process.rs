//! Child processes: started with their output in files, waited for with a deadline, killed by their own id.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A running child.
#[derive(Debug)]
pub struct Running {
    id: u32,
    exit: Receiver<io::Result<ExitStatus>>,
    ended: Option<ExitStatus>,
    out: PathBuf,
    err: PathBuf,
}

/// A child that ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    /// how it ended
    pub status: ExitStatus,
    /// standard output
    pub out: String,
    /// standard error
    pub err: String,
}

impl Running {
    /// Starts `command`; its output goes to `<log>.out` and `<log>.err`.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Running> {
        let (out, err) = (log.with_extension("out"), log.with_extension("err"));
        command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
        let mut child = command.spawn()?;
        let id = child.id();
        let (send, exit) = channel();
        thread::spawn(move || send.send(child.wait()));
        Ok(Running { id, exit, ended: None, out, err })
    }

    /// Waits at most `limit` for the end; true when it has ended.
    pub fn ended_within(&mut self, limit: Duration) -> bool {
        if self.ended.is_none() {
            self.ended = match self.exit.recv_timeout(limit) {
                Ok(status) => Some(status.expect("status of a child")),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => panic!("the thread that waits for a child is gone"),
            };
        }
        self.ended.is_some()
    }

    /// Waits until `done` or the end of the process; false at the deadline or the end.
    pub fn wait_until(&mut self, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if done() {
                return true;
            }
            if self.ended_within(Duration::from_millis(2)) {
                return false;
            }
        }
        false
    }

    /// Its environment as Linux tells it, `NAME=value`.
    pub fn environment(&self) -> io::Result<Vec<String>> {
        let all = std::fs::read_to_string(format!("/proc/{}/environ", self.id))?;
        Ok(all.split_terminator('\0').map(str::to_owned).collect())
    }

    /// Sends `signal` (`KILL`, `TERM`, …) unless the process has ended; true when it was sent.
    pub fn signal(&mut self, signal: &str) -> bool {
        if self.ended_within(Duration::ZERO) {
            return false;
        }
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.id.to_string()).status();
        sent.is_ok_and(|status| status.success())
    }

    /// Waits for the end; kills it at the deadline and fails with its last words. A panic on the way is a failure too.
    pub fn end(mut self, limit: Duration) -> Ended {
        if !self.ended_within(limit) {
            self.signal("KILL");
            self.ended_within(Duration::from_secs(10));
            panic!("no end within {limit:?}\n{}", self.last_words());
        }
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let ended = Ended { status: self.ended.expect("ended above"), out: read(&self.out), err: read(&self.err) };
        assert!(!ended.err.contains("panicked at"), "it panicked on the way\n{}", ended.last_words());
        ended
    }

    /// Sends SIGKILL and waits; true when the signal is what ended it.
    pub fn kill(mut self) -> bool {
        self.signal("KILL");
        assert!(self.ended_within(Duration::from_secs(30)), "a killed process does not end");
        self.ended.is_some_and(|status| status.signal() == Some(9))
    }

    /// The file that its standard error goes to.
    pub fn err(&self) -> &Path {
        &self.err
    }

    /// The ends of its output, for a failure's message.
    pub fn last_words(&self) -> String {
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        format!("--- stdout ends\n{}\n--- stderr ends\n{}", tail(&read(&self.out)), tail(&read(&self.err)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal("KILL");
    }
}

impl Ended {
    /// Fails unless the exit code is `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        let got = self.status;
        assert!(got.code() == Some(code), "`{got}` where exit code {code} was expected\n{}", self.last_words());
        self
    }

    /// True when it aborted (SIGABRT).
    pub fn aborted(&self) -> bool {
        self.status.signal() == Some(6)
    }

    /// The ends of its output, for a failure's message.
    pub fn last_words(&self) -> String {
        format!("--- stdout ends\n{}\n--- stderr ends\n{}", tail(&self.out), tail(&self.err))
    }
}

fn tail(text: &str) -> String {
    const LINES: usize = 25;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
