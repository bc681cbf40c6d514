//! The mock broker as a child process, so that it outlives every kill of `lode`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::places;

/// How the records are produced.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// all of them before the address is told
    AllAtOnce,
    /// this many records a second, after the address is told
    PerSecond(u32),
}

/// A running broker; it ends when this is dropped.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    // the broker runs until this end of its standard input closes
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    address: String,
    produced: bool,
}

impl Broker {
    /// Starts a broker that holds the records of `capture`, its partitions mixed at random by `seed`.
    pub fn start(capture: &Path, seed: u64, pace: Pace) -> Broker {
        Broker::launch(capture, seed, pace, &[])
    }

    /// The same, but the records of the topic `first` come before all others: structures are told before their rows, as a
    /// connector tells them, and no table has to wait.
    pub fn start_with(first: &str, capture: &Path, seed: u64, pace: Pace) -> Broker {
        Broker::launch(capture, seed, pace, &["--first", first])
    }

    /// The same, all at once, and `markers` offsets without a record at the end of each partition, as transactions leave
    /// them.
    pub fn start_with_markers(capture: &Path, seed: u64, markers: u64) -> Broker {
        Broker::launch(capture, seed, Pace::AllAtOnce, &["--markers", &markers.to_string()])
    }

    fn launch(capture: &Path, seed: u64, pace: Pace, more: &[&str]) -> Broker {
        let mut command = Command::new(places::program("broker"));
        command.arg("--capture").arg(capture).args(["--seed", &seed.to_string()]).args(more);
        if let Pace::PerSecond(rate) = pace {
            command.args(["--rate", &rate.to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("broker starts");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("standard output is piped"));
        let (send, lines) = channel();
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        let mut broker = Broker { child, input, lines, address: String::new(), produced: false };
        broker.address = broker.told("bootstrap ");
        if matches!(pace, Pace::AllAtOnce) {
            broker.finish();
        }
        broker
    }

    /// `host:port` for the pipeline file.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits until every record is produced and has the offset that the capture says.
    pub fn finish(&mut self) {
        if !self.produced {
            self.told("produced ");
            self.produced = true;
        }
    }

    fn told(&mut self, start: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(180));
            let line = line.unwrap_or_else(|e| panic!("the broker did not say `{start}…`: {e}"));
            if let Some(rest) = line.strip_prefix(start) {
                return rest.to_owned();
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
