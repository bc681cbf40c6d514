//! `[server]`: the address at which a run answers those who watch it.
//!
//! Promises an address of this machine alone unless `allow_remote` says otherwise: the pages ask nobody who they are.

use std::net::{Ipv4Addr, SocketAddr};

use super::reader::Section;
use crate::error::{Error, ErrorKind, Result};

/// Where a run answers when the section does not say.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Where a run answers those who watch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// address and port; port 0: any that is free
    pub listen: SocketAddr,
    /// other machines may reach it
    pub allow_remote: bool,
}

impl Server {
    /// What `--listen` makes of the pipeline file's section.
    ///
    /// # Errors
    /// `Config` where the text is no address, or one that other machines reach and the section does not allow it.
    pub fn overridden(section: Option<Server>, listen: Option<&str>) -> Result<Option<Server>> {
        let Some(text) = listen else { return Ok(section) };
        let allow_remote = section.is_some_and(|server| server.allow_remote);
        let listen = parse(text)
            .ok_or_else(|| Error::new(ErrorKind::Config, format!("`--listen {text}` is not an address")).hint(FORM))?;
        let server = Server { listen, allow_remote };
        if server.is_exposed() {
            return Err(Error::new(ErrorKind::Config, format!("`--listen {text}` {EXPOSED}")).hint(ALLOW));
        }
        Ok(Some(server))
    }

    fn is_exposed(&self) -> bool {
        !self.listen.ip().is_loopback() && !self.allow_remote
    }
}

const FORM: &str = "give address and port, such as `127.0.0.1:9464`";
const EXPOSED: &str = "can be reached from other machines, and the pages ask nobody who they are";
const ALLOW: &str = "listen on `127.0.0.1`; or, where a network policy keeps strangers out, set `allow_remote = true` in \
                     `[server]` of the pipeline file";

pub(super) fn read(root: &Section<'_>) -> Result<Option<Server>> {
    let Some(section) = root.section("server")? else { return Ok(None) };
    section.allow(&["listen", "allow_remote"])?;
    let listen = match section.string("listen")? {
        Some(text) => parse(&text).ok_or_else(|| section.error(Some("listen"), "is not an address").hint(FORM))?,
        None => LISTEN,
    };
    let server = Server { listen, allow_remote: section.flag("allow_remote")?.unwrap_or(false) };
    if server.is_exposed() {
        return Err(section.error(Some("listen"), EXPOSED).hint(ALLOW));
    }
    Ok(Some(server))
}

/// `127.0.0.1:9464`, `[::1]:9464`, `localhost:9464`; no other name, since what a name means is not ours to say.
fn parse(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn with(section: &str) -> Result<Option<Server>> {
        let text = format!(
            "name = \"x\"\nmirror_tables = [\"*\"]\n[source.kafka]\nbrokers = \"b:1\"\ntopics = \"x\"\n[lake]\nroot = \"lake\"\n{section}"
        );
        Config::parse(Path::new("p.toml"), &text).map(|config| config.server)
    }

    #[test]
    fn without_a_section_nothing_listens_and_without_an_address_only_this_machine_is_answered() {
        assert_eq!(with("").unwrap(), None);
        let server = with("[server]\n").unwrap().unwrap();
        assert_eq!((server.listen.to_string().as_str(), server.allow_remote), ("127.0.0.1:9464", false));
        for text in ["localhost:1", "127.8.8.8:1", "[::1]:1"] {
            assert!(with(&format!("[server]\nlisten = \"{text}\"\n")).unwrap().unwrap().listen.ip().is_loopback());
        }
    }

    #[test]
    fn an_address_that_others_reach_must_be_allowed() {
        for text in ["0.0.0.0:9464", "[::]:9464", "10.1.2.3:9464"] {
            let error = with(&format!("[server]\nlisten = \"{text}\"\n")).unwrap_err();
            let hint = error.next_step().unwrap();
            assert!(error.to_string().contains("p.toml:9: `server.listen` can be reached"), "{error}");
            assert!(hint.contains("allow_remote"), "{hint}");
            let allowed = with(&format!("[server]\nlisten = \"{text}\"\nallow_remote = true\n")).unwrap();
            assert!(Server::overridden(allowed, Some("0.0.0.0:1")).unwrap().is_some());
            assert!(Server::overridden(None, Some(text)).unwrap_err().to_string().contains("--listen"));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_one_that_is() {
        for text in ["9464", "localhost", "metrics.example.org:9464", "127.0.0.1:70000"] {
            let error = with(&format!("[server]\nlisten = \"{text}\"\n")).unwrap_err();
            assert!(error.next_step().unwrap().contains("127.0.0.1:9464"), "{error}");
            assert!(Server::overridden(None, Some(text)).is_err());
        }
    }

    #[test]
    fn the_command_line_says_otherwise_than_the_file() {
        let section = with("[server]\n").unwrap();
        assert_eq!(Server::overridden(section, None).unwrap(), section);
        assert_eq!(Server::overridden(section, Some("localhost:0")).unwrap().unwrap().listen.port(), 0);
    }
}
