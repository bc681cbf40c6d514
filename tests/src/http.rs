//! A client for pages on this machine: one request, one connection, what came back.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// 200 and the like
    pub code: u16,
    /// status line and header lines, in lower case
    pub head: String,
    /// the rest
    pub body: String,
}

/// `METHOD path` from whoever listens at `address`, called `host`; `None` where nobody listens.
pub fn ask(address: SocketAddr, method: &str, path: &str, host: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).ok()?;
    stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").expect("a request is sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer that ends");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {text}"));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Some(Answer {
        code: code.unwrap_or_else(|| panic!("no code: {head}")),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

/// `GET path` under the name of this machine.
pub fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    ask(address, "GET", path, &format!("localhost:{}", address.port()))
}
