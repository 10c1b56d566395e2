//! `Endpoint`: where a debugger can connect, and waiting there for one.
//!
//! Whoever connects is lord over the guest, so the default is this computer's own loopback address.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::readiness::is_ready;
use crate::stop::StopHandle;

/// Where a debugger can connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = String;

    /// Reads `tcp:PORT`, `tcp:HOST:PORT` or `unix:PATH`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            Some(("tcp", address)) => tcp(address),
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(PathBuf::from(path))),
            _ => Err(format!(
                "`{text}` is not a place to wait for a debugger: write tcp:PORT, tcp:HOST:PORT or unix:PATH, or \
                 `--gdb` alone behind the image"
            )),
        }
    }
}

fn tcp(text: &str) -> std::result::Result<Endpoint, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(Endpoint::Tcp((Ipv4Addr::LOCALHOST, port).into()));
    }
    let mut found = text.to_socket_addrs().map_err(|error| format!("`{text}` is no HOST:PORT: {error}"))?;
    found.next().map(Endpoint::Tcp).ok_or_else(|| format!("`{text}` has no address"))
}

impl fmt::Display for Endpoint {
    /// What stands behind gdb's `target remote`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A place where a debugger is waited for.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    endpoint: Endpoint,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// How often the wait looks whether the machine is to stop; a signal ends a wait early.
const LOOK_EVERY_MS: libc::c_int = 50;

impl Listener {
    /// Starts to listen.
    ///
    /// # Errors
    /// [`Error::Debugger`].
    pub fn bind(endpoint: Endpoint) -> Result<Self> {
        let failed =
            |source| Error::Debugger { action: format!("listen at {endpoint} for a debugger"), source };
        let socket = match &endpoint {
            Endpoint::Tcp(address) => Socket::Tcp(TcpListener::bind(address).map_err(failed)?),
            Endpoint::Unix(path) => Socket::Unix(UnixListener::bind(path).map_err(failed)?),
        };
        // Port 0 lets the host choose.
        let endpoint = match &socket {
            Socket::Tcp(listener) => Endpoint::Tcp(listener.local_addr().map_err(failed)?),
            Socket::Unix(_) => endpoint,
        };
        Ok(Self { socket, endpoint })
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Waits for a debugger; `None` when the machine is asked to stop before one comes.
    ///
    /// # Errors
    /// [`Error::Debugger`].
    pub(super) fn accept(self, stop: &StopHandle) -> Result<Option<OwnedFd>> {
        self.accept_until(|| stop.requested().is_some()).map_err(|source| Error::Debugger {
            action: format!("wait at {} for a debugger", self.endpoint),
            source,
        })
    }

    fn accept_until(&self, is_over: impl Fn() -> bool) -> io::Result<Option<OwnedFd>> {
        let file = self.socket.as_file()?;
        while !is_ready(&file, libc::POLLIN, LOOK_EVERY_MS)? {
            if is_over() {
                return Ok(None);
            }
        }
        let connection = match &self.socket {
            Socket::Tcp(listener) => {
                let connection = listener.accept()?.0;
                // Packets are small and each waits for its answer.
                connection.set_nodelay(true)?;
                connection.into()
            }
            Socket::Unix(listener) => listener.accept()?.0.into(),
        };
        Ok(Some(connection))
    }
}

impl Socket {
    fn as_file(&self) -> io::Result<File> {
        let descriptor: OwnedFd = match self {
            Self::Tcp(listener) => listener.try_clone()?.into(),
            Self::Unix(listener) => listener.try_clone()?.into(),
        };
        Ok(File::from(descriptor))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Endpoint::Unix(path) = &self.endpoint {
            // The socket's file is ours: `bind` made it. That it is gone already is as good.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_told_as_gdb_wants_them() {
        for (text, remote) in [
            ("tcp:1234", "127.0.0.1:1234"),
            ("tcp:0.0.0.0:99", "0.0.0.0:99"),
            ("tcp:[::1]:99", "[::1]:99"),
            ("unix:/tmp/a:b", "/tmp/a:b"),
        ] {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!(endpoint.to_string(), remote);
        }
        for wrong in ["", "1234", "kernel.elf", "tcp:", "tcp:70000", "tcp:a b", "unix:", "udp:1"] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_socket_in_the_file_system_goes_with_its_listener() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gdb");
        let listener = Listener::bind(Endpoint::Unix(path.clone())).expect("a free path");
        assert!(path.exists());
        drop(listener);
        assert!(!path.exists());
    }
}
