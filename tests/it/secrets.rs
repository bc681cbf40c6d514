//! Secrets of the broker: named in the pipeline file, kept elsewhere, shown nowhere.

use std::fs;
use std::path::Path;

use lodestream_tests::broker::{Broker, Pace};
use lodestream_tests::pipeline::{Pipeline, Wanted};
use lodestream_tests::process::Ended;

use crate::variants::{OPEN_B, seed};

const SECRET: &str = "hunter2-shown-nowhere";

/// A pipeline over `broker` with these settings, and the secret in the file `secret` beside it.
fn pipeline(broker: &Broker, options: &str) -> Pipeline {
    let sections = format!("[source.kafka.options]\n{options}\n");
    let pipeline = OPEN_B.through(broker, &Wanted { sections, ..Wanted::default() });
    fs::write(pipeline.folder().join("secret"), format!("{SECRET}\n")).expect("secret");
    pipeline
}

/// Runs `lode` with every message that it and librdkafka have.
fn run(pipeline: &Pipeline, words: &[&str], more: &[&str]) -> Ended {
    let mut command = pipeline.command(words, more);
    command.env("LODE_TEST_SECRET", SECRET).env("RUST_LOG", "info,lodestream=trace,rdkafka=trace,librdkafka=trace");
    pipeline.output(words[0], command)
}

/// Fails if a file of the pipeline's folder holds the secret: the lake, what the runs said, the pipeline file.
#[track_caller]
fn expect_shown_nowhere(folder: &Path) {
    for entry in fs::read_dir(folder).expect("folder of the pipeline").flatten() {
        let path = entry.path();
        if path.is_dir() {
            expect_shown_nowhere(&path);
        } else if path.file_name().is_none_or(|name| name != "secret") {
            let bytes = fs::read(&path).expect("a file of the pipeline");
            let shown = bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
            assert!(!shown, "`{}` holds the secret", path.display());
        }
    }
}

#[test]
fn a_secret_of_the_broker_is_shown_nowhere() {
    let broker = Broker::start(&OPEN_B.file(), seed("secret"), Pace::AllAtOnce);
    let kept = "\"sasl.password\" = { env = \"LODE_TEST_SECRET\" }\n\"ssl.key.password\" = { file = \"secret\" }\n\
                debug = \"conf,security,feature\"";
    let sound = pipeline(&broker, kept);
    let told = run(&sound, &["check"], &[]).expect_code(0);
    assert!(told.out.contains("`sasl.password` can be read"), "{}", told.last_words());
    run(&sound, &["run"], &["--until-end"]).expect_code(0);
    expect_shown_nowhere(sound.folder());

    // A setting that librdkafka refuses is named without its value.
    let wrong = pipeline(&broker, "\"socket.timeout.ms\" = { file = \"secret\" }");
    let told = run(&wrong, &["run"], &[]).expect_code(2);
    assert!(told.err.contains("`socket.timeout.ms`"), "{}", told.last_words());
    expect_shown_nowhere(wrong.folder());

    // The mock knows no SASL: what is said of a refused password must not hold it.
    let sasl =
        "\"security.protocol\" = \"sasl_plaintext\"\n\"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = \"lode\"";
    let refused = pipeline(&broker, &format!("{sasl}\n{kept}"));
    run(&refused, &["run"], &["--until-end"]).expect_code(1);
    expect_shown_nowhere(refused.folder());
}

#[test]
fn a_secret_that_is_not_there_is_found_by_the_check() {
    let broker = Broker::start(&OPEN_B.file(), seed("secret"), Pace::AllAtOnce);
    let pipeline = pipeline(&broker, "\"sasl.password\" = { env = \"LODE_TEST_NO_SECRET\" }");
    for words in ["check", "run"] {
        let ended = pipeline.output(words, pipeline.command(&[words], &[]));
        let ended = ended.expect_code(2);
        let told = format!("{}{}", ended.out, ended.err);
        assert!(told.contains("`LODE_TEST_NO_SECRET`") && told.contains("`sasl.password`"), "{told}");
    }
}
