//! What no producer of ours can send: record batches as they stand on the wire.
//!
//! For the mock broker, which stores batches as they come. Every batch holds one record.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

/// Attributes of a record batch that ends a transaction.
const TRANSACTIONAL_CONTROL: i16 = 0x30;
/// Key of a control record: version 0, type 1 (commit).
const COMMIT: [u8; 4] = [0, 0, 0, 1];

/// Appends what a broker writes when a transaction is committed: an offset that holds no record.
pub fn append_commit_marker(broker: &str, topic: &str, partition: i32) -> io::Result<()> {
    append(broker, topic, partition, &batch(TRANSACTIONAL_CONTROL, &record(&COMMIT, &[0; 6], &[])))
}

/// Appends a record with these headers, whatever bytes their names are.
pub fn append_with_headers(broker: &str, topic: &str, partition: i32, headers: &[(&[u8], &[u8])]) -> io::Result<()> {
    append(broker, topic, partition, &batch(0, &record(b"k", b"v", headers)))
}

fn append(broker: &str, topic: &str, partition: i32, batch: &[u8]) -> io::Result<()> {
    let mut request = Vec::new();
    request.extend([0, 0, 0, 7]); // Produce, version 7
    request.extend(1i32.to_be_bytes()); // correlation
    request.extend([0, 1, b't']); // client
    request.extend((-1i16).to_be_bytes()); // no transactional id
    request.extend((-1i16).to_be_bytes()); // all acks
    request.extend(10_000i32.to_be_bytes()); // milliseconds
    request.extend(1i32.to_be_bytes()); // topics
    request.extend((topic.len() as i16).to_be_bytes());
    request.extend(topic.as_bytes());
    request.extend(1i32.to_be_bytes()); // partitions
    request.extend(partition.to_be_bytes());
    request.extend((batch.len() as i32).to_be_bytes());
    request.extend(batch);
    let mut stream = TcpStream::connect(broker)?;
    stream.write_all(&(request.len() as i32).to_be_bytes())?;
    stream.write_all(&request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut response = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut response)?;
    // correlation, topics, name, partitions, partition, error
    let error = 4 + 4 + 2 + topic.len() + 4 + 4;
    match response.get(error..error + 2) {
        Some([0, 0]) => Ok(()),
        _ => Err(io::Error::other(format!("the broker refused the batch: {response:?}"))),
    }
}

fn batch(attributes: i16, record: &[u8]) -> Vec<u8> {
    let mut tail = Vec::new();
    tail.extend(attributes.to_be_bytes());
    tail.extend(0i32.to_be_bytes()); // last offset's delta
    tail.extend(1i64.to_be_bytes()); // first and last timestamp
    tail.extend(1i64.to_be_bytes());
    tail.extend((-1i64).to_be_bytes()); // producer, its epoch, sequence
    tail.extend((-1i16).to_be_bytes());
    tail.extend((-1i32).to_be_bytes());
    tail.extend(1i32.to_be_bytes()); // records
    tail.extend(record);
    let mut out = Vec::new();
    out.extend(0i64.to_be_bytes()); // base offset, set by the broker
    out.extend((tail.len() as i32 + 9).to_be_bytes());
    out.extend(0i32.to_be_bytes()); // leader epoch
    out.push(2); // magic
    out.extend(crc32c(&tail).to_be_bytes());
    out.extend(tail);
    out
}

fn record(key: &[u8], value: &[u8], headers: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut body = vec![0, 0, 0]; // attributes, timestamp's and offset's delta
    for part in [key, value] {
        varint(part.len(), &mut body);
        body.extend(part);
    }
    varint(headers.len(), &mut body);
    for part in headers.iter().flat_map(|(name, value)| [name, value]) {
        varint(part.len(), &mut body);
        body.extend(*part);
    }
    let mut out = Vec::new();
    varint(body.len(), &mut out);
    out.extend(body);
    out
}

/// Zigzag, seven bits a byte.
fn varint(value: usize, out: &mut Vec<u8>) {
    let mut left = value << 1;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn crc32c(bytes: &[u8]) -> u32 {
    let fold = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0x82f6_3b78 } else { c >> 1 })
    };
    !bytes.iter().fold(!0, fold)
}
