//! Whole pipelines on a lake in memory that fails as told: one sick table, and fourteen that must not notice.
//!
//! The source is a capture file or grows while it is read, the lake is an object store in memory behind faults, everything
//! between is as it runs. What has to be in a table is kept beside the capture.

mod behind;
mod ending;
mod faulty;
mod gold;
mod files;
mod rebuilding;
mod sharing;
mod shop;
mod sickness;
mod stream;
mod structure;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Ending, Options, Pipeline, Progress, Status, Summary, out_of_time};
use crate::config::Config;
use crate::error::Result;
use faulty::FaultyLake;
use shop::Shop;

/// Longest wait for anything here.
const LIMIT: Duration = Duration::from_secs(60);

/// What is drawn in a test is drawn from this.
fn seed() -> u64 {
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random::<u64>);
    eprintln!("FUZZ_SEED={seed}");
    seed
}

/// Writes the file of a pipeline of `shop`, with `more` in it.
fn write_file(shop: &Shop, more: &str) -> (PathBuf, String) {
    let text = format!(
        "name = \"shop\"\nmirror_tables = [\"*\"]\n[source.replay]\nfiles = {:?}\n[lake]\nroot = \"lake\"\n[flush]\nrows = 50\nage = \"50ms\"\n{more}",
        shop.file().display().to_string()
    );
    let path = shop.folder().join("pipeline.toml");
    std::fs::write(&path, &text).expect("the pipeline file");
    (path, text)
}

/// A pipeline of `shop` into `lake`, with `more` in its file.
fn pipeline(shop: &Shop, lake: &FaultyLake, more: &str, until_end: bool) -> Pipeline {
    let (path, text) = write_file(shop, more);
    let config = Config::parse(&path, &text).expect("a pipeline file");
    let root = lake.root();
    let open_root = move |_: &Config| Ok(root.clone());
    Pipeline::over(config, Options { until_end, watched: false }, Box::new(open_root)).expect("a pipeline")
}

/// A pipeline that runs.
struct Run {
    progress: Arc<Progress>,
    nudge: Arc<tokio::sync::Notify>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Summary>>,
}

impl Run {
    /// Starts a pipeline of `shop` into `lake`, with more in its file. It reads the capture.
    fn start(shop: &Shop, lake: &FaultyLake, more: &str, until_end: bool) -> Run {
        Self::of(pipeline(shop, lake, more, until_end))
    }

    /// The same, but it reads what the connector writes meanwhile, until it is stopped.
    fn follow(shop: &Shop, lake: &FaultyLake, more: &str) -> Run {
        let mut pipeline = pipeline(shop, lake, more, false);
        let topics = shop.topics();
        pipeline.begin_source =
            Box::new(move |config, _, budget| stream::start(Arc::clone(&topics), budget, config.flush.rows));
        Self::of(pipeline)
    }

    fn of(pipeline: Pipeline) -> Run {
        let (progress, nudge) = (pipeline.progress(), pipeline.nudge());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(pipeline.run(async move { drop(stopped.await) }));
        Run { progress, nudge, stop, task }
    }

    /// Waits until Bronze has everything that the connector wrote.
    async fn until_in_bronze(&self, shop: &Shop) {
        let ends = shop.ends();
        self.until("Bronze has everything", async |status| {
            ends.iter().all(|(topic, end)| {
                let partition = status.bronze.get(topic).and_then(|topic| topic.partitions.get(&0));
                partition.and_then(|partition| partition.position) >= Some(*end)
            })
        })
        .await;
    }

    /// Waits until every table is exact.
    #[track_caller]
    fn until_exact<'a>(&'a self, shop: &'a Shop, lake: &'a FaultyLake) -> impl Future<Output = ()> + 'a {
        self.until("every table is exact", async |_| shop.others_are_exact(lake, &[]).await)
    }

    /// Waits for the end of a run to the end.
    async fn end(self) -> Result<Summary> {
        self.task.await.expect("the run's own task")
    }

    fn status(&self) -> Status {
        self.progress.status()
    }

    /// Waits until the run stands as wanted.
    #[track_caller]
    fn until<'a>(
        &'a self,
        what: &'static str,
        done: impl AsyncFn(&Status) -> bool + 'a,
    ) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let deadline = Instant::now() + LIMIT;
            loop {
                let status = self.status();
                if done(&status).await {
                    return;
                }
                assert!(Instant::now() < deadline, "{caller}: not within {LIMIT:?}: {what}\n{status:#?}");
                assert!(!self.task.is_finished(), "{caller}: the run ended before: {what}\n{status:#?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn stop(self) -> Result<Summary> {
        drop(self.stop);
        self.task.await.expect("the run's own task")
    }
}

#[tokio::test]
async fn a_run_to_the_end_has_all_the_time_until_it_is_told_to_stop() {
    let (stop_now, stopping) = oneshot::channel();
    let mut over = std::pin::pin!(out_of_time(Ending::Complete, stopping, Duration::ZERO));
    assert!(futures::poll!(&mut over).is_pending());
    stop_now.send(()).unwrap();
    over.await;

    let (stop_now, stopping) = oneshot::channel();
    drop(stop_now);
    assert!(futures::poll!(std::pin::pin!(out_of_time(Ending::Complete, stopping, Duration::ZERO))).is_pending());
    out_of_time(Ending::BrokenOff, oneshot::channel().1, Duration::ZERO).await;
}
