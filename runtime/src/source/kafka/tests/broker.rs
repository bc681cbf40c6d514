//! A mock broker in the test's own process.

use std::time::Duration;

use lodestream_tests::wire;
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

pub(super) struct Broker {
    pub(super) cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
}

impl Broker {
    pub(super) fn with(topics: &[&str]) -> Broker {
        let cluster = MockCluster::new(1).unwrap();
        for topic in topics {
            cluster.create_topic(topic, 1, 1).unwrap();
        }
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("topic.metadata.refresh.interval.ms", "200")
            .create()
            .unwrap();
        Broker { cluster, producer }
    }

    /// Appends `count` records of `bytes` to the topic's only partition.
    pub(super) fn fill(&self, topic: &str, count: usize, bytes: usize) {
        let value = vec![b'x'; bytes];
        for _ in 0..count {
            self.producer.send(BaseRecord::<[u8], [u8]>::to(topic).partition(0).payload(&value)).unwrap();
            self.producer.poll(Duration::ZERO);
        }
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// Appends an offset that holds no record.
    pub(super) fn commit_marker(&self, topic: &str) {
        wire::append_commit_marker(&self.cluster.bootstrap_servers(), topic, 0).unwrap();
    }

    /// Appends a record with these headers.
    pub(super) fn append_with_headers(&self, topic: &str, headers: &[(&[u8], &[u8])]) {
        wire::append_with_headers(&self.cluster.bootstrap_servers(), topic, 0, headers).unwrap();
    }
}
