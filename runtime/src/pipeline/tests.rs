//! Whole pipelines on a lake in memory that fails as told: one sick table, and fourteen that must not notice.
//!
//! The source is a capture file, the lake an object store in memory behind faults, everything between is as it runs. What
//! has to be in a table is kept beside the capture.

mod faulty;
mod shop;
mod sickness;

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

/// A pipeline that runs.
struct Run {
    progress: Arc<Progress>,
    nudge: Arc<tokio::sync::Notify>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Summary>>,
}

impl Run {
    /// Starts a pipeline of `shop` into `lake`, with more in its file.
    fn start(shop: &Shop, lake: &FaultyLake, more: &str, until_end: bool) -> Run {
        let text = format!(
            "name = \"shop\"\nmirror_tables = [\"*\"]\n[source.replay]\nfiles = {:?}\n[lake]\nroot = \"lake\"\n[flush]\nrows = 50\nage = \"50ms\"\n{more}",
            shop.file().display().to_string()
        );
        let config = Config::parse(&shop.folder().join("pipeline.toml"), &text).expect("a pipeline file");
        let root = lake.root();
        let open_root = move |_: &Config| Ok(root.clone());
        let options = Options { until_end, watched: false };
        let pipeline = Pipeline::over(config, options, Box::new(open_root)).expect("a pipeline");
        let (progress, nudge) = (pipeline.progress(), pipeline.nudge());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(pipeline.run(async move { drop(stopped.await) }));
        Run { progress, nudge, stop, task }
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
