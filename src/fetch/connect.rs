//! A TCP connection that is waited for by the caller.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Instant;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use crate::deadline::{Deadline, Interrupted, MOST_TO_CONNECT};
use crate::request::MAX_HEADER_BYTES;
use crate::{Event, FetchError};

/// Connects to one of the addresses that were resolved, whose host is `host`.
#[derive(Debug)]
pub(crate) struct Connect {
    pub host: String,
    pub deadline: Deadline,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffers: LazyBuffers,
    host: String,
    deadline: Deadline,
}

/// Larger than the headers may be, so that it is too large that they are and not the buffer that is full.
const BUFFER_BYTES: usize = MAX_HEADER_BYTES + 1024;

impl<In: Transport> Connector<In> for Connect {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _chained: Option<In>,
    ) -> Result<Option<Connection>, ureq::Error> {
        let stream = self.to_any(&details.addrs);
        let stream = stream.map_err(|error| ureq::Error::Other(Box::new(error)))?;
        Ok(Some(Connection {
            stream,
            buffers: LazyBuffers::new(BUFFER_BYTES, BUFFER_BYTES),
            host: self.host.clone(),
            deadline: self.deadline.clone(),
        }))
    }
}

impl Connect {
    /// In their order. One that does not answer leaves time for those after it.
    fn to_any(&self, addresses: &[SocketAddr]) -> Result<TcpStream, FetchError> {
        let end = Instant::now() + MOST_TO_CONNECT;
        let mut last = FetchError::failed(format!("{} has no address", self.host));
        for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
            let now = Instant::now();
            let share = u32::try_from(left).unwrap_or(u32::MAX);
            let until = now + end.saturating_duration_since(now) / share;
            match self.to(*address, until) {
                Ok(stream) => return Ok(stream),
                Err(Interrupted::Failed(error)) => {
                    last = FetchError::failed(format!(
                        "cannot connect to {} ({address}): {error}",
                        self.host
                    ));
                }
                Err(late) => {
                    last = late.explain(&self.host, || {
                        let seconds = MOST_TO_CONNECT.as_secs();
                        format!("no connection to {} within {seconds} s", self.host)
                    });
                }
            }
        }
        Err(last)
    }

    fn to(&self, address: SocketAddr, until: Instant) -> Result<TcpStream, Interrupted> {
        let kind = Type::STREAM;
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // Otherwise a request waits for the acknowledgement of the handshake before it.
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
            done => {
                done?;
                return Ok(socket.into());
            }
        }
        let stream = TcpStream::from(socket);
        loop {
            self.deadline.wait(stream.as_fd(), Event::Writable, until)?;
            if let Some(error) = stream.take_error()? {
                return Err(error.into());
            }
            match stream.peer_addr() {
                Ok(_) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl From<io::Error> for Interrupted {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl Connection {
    fn wait(&self, event: Event) -> Result<(), ureq::Error> {
        let end = self.deadline.end();
        let waited = self.deadline.wait(self.stream.as_fd(), event, end);
        waited.map_err(|interrupted| {
            let error = interrupted.explain(&self.host, String::new);
            ureq::Error::Other(Box::new(error))
        })
    }
}

/// The library's own time-outs are not set: the deadline is one for all.
impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _timeout: NextTimeout) -> Result<(), ureq::Error> {
        let mut sent = 0;
        while sent < amount {
            self.wait(Event::Writable)?;
            let left = self.buffers.output().get(sent..amount).unwrap_or_default();
            match self.stream.write(left) {
                Ok(written) => sent += written,
                Err(error) if again(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _timeout: NextTimeout) -> Result<bool, ureq::Error> {
        loop {
            self.wait(Event::Readable)?;
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(read) => {
                    self.buffers.input_appended(read);
                    return Ok(read > 0);
                }
                Err(error) if again(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Each request has a connection of its own, whose addresses have been checked for it.
    fn is_open(&mut self) -> bool {
        false
    }
}

fn again(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::tests::Poll;

    fn connect(addresses: &[SocketAddr]) -> Result<SocketAddr, String> {
        let connect = Connect {
            host: "id.example.com".to_owned(),
            deadline: Deadline::new(Arc::new(Poll)),
        };
        let stream = connect.to_any(addresses);
        stream
            .map(|stream| stream.peer_addr().unwrap())
            .map_err(|error| error.to_string())
    }

    fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Nobody listens there.
    fn closed() -> SocketAddr {
        listening().1
    }

    /// Does not answer, as its queue of connections is full. They are what is returned beside it.
    fn mute() -> (Vec<Socket>, SocketAddr) {
        let new = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let listener = new();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut sockets = vec![listener];
        for _ in 0..4 {
            let socket = new();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address);
            sockets.push(socket);
        }
        (sockets, address.as_socket().unwrap())
    }

    #[test]
    fn the_first_address_that_answers_is_taken() {
        let (_listener, good) = listening();
        assert_eq!(connect(&[good]), Ok(good));
        assert_eq!(connect(&[closed(), closed(), good]), Ok(good));
        let last = closed();
        let error = connect(&[closed(), last]).unwrap_err();
        let expected = format!("cannot connect to id.example.com ({last}): Connection refused");
        assert!(error.starts_with(&expected), "{error}");
        assert_eq!(
            connect(&[]),
            Err("id.example.com has no address".to_owned())
        );
    }

    #[test]
    fn an_address_that_does_not_answer_leaves_time_for_the_next() {
        let ((_listener, good), (_full, mute)) = (listening(), mute());
        let started = Instant::now();
        assert_eq!(connect(&[mute, good]), Ok(good));
        let took = started.elapsed();
        assert!(
            took >= MOST_TO_CONNECT / 2 && took < MOST_TO_CONNECT,
            "{took:?}"
        );

        let started = Instant::now();
        let expected = "no connection to id.example.com within 2 s".to_owned();
        assert_eq!(connect(&[mute, mute, mute]), Err(expected));
        let took = started.elapsed();
        let slack = Duration::from_millis(500);
        assert!(
            took >= MOST_TO_CONNECT && took < MOST_TO_CONNECT + slack,
            "{took:?}"
        );
    }
}
