//! From a host to addresses that the rule allows.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::AsFd as _;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use nix::sys::signal::{SigSet, SigmaskHow};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::deadline::{Deadline, MOST_TO_RESOLVE};
use crate::permission::Reach;
use crate::url::{Host, Url};
use crate::{Event, FetchError, Refused};

/// Resolves the host of one URL.
#[derive(Debug)]
pub(crate) struct Resolve {
    pub url: Url,
    pub reach: Reach,
    pub deadline: Deadline,
}

impl Resolver for Resolve {
    /// What this returns is what is connected to: there is no second look-up.
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self
            .addresses()
            .and_then(|found| self.allowed(found))
            .map_err(|error| ureq::Error::Other(Box::new(error)))?;
        let mut addresses = self.empty();
        // Its room is 16.
        for address in found.into_iter().take(16) {
            addresses.push(address);
        }
        Ok(addresses)
    }
}

impl Resolve {
    /// All of them, or an error: a host with one address inside and one outside is a trick.
    fn allowed(&self, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, FetchError> {
        let inside = found.iter().find(|found| !self.reach.includes(found.ip()));
        match inside {
            Some(address) => Err(FetchError::Refused(Refused::Address {
                host: self.url.host.to_string(),
                address: address.ip(),
                only_loopback: self.reach == Reach::Loopback,
            })),
            None if found.is_empty() => Err(self.failed("it has no address")),
            None => Ok(found),
        }
    }

    fn addresses(&self) -> Result<Vec<SocketAddr>, FetchError> {
        let port = self.url.port;
        match &self.url.host {
            Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, port)]),
            Host::Name(name) => {
                let name = name.clone();
                self.look_up(move || (name.as_str(), port).to_socket_addrs().map(Vec::from_iter))
            }
        }
    }

    /// Has the system's resolver asked in a thread, as it can only be waited for. A thread that comes too late
    /// finds nobody to tell, and ends.
    fn look_up(
        &self,
        ask: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> Result<Vec<SocketAddr>, FetchError> {
        let unable = |error: io::Error| self.failed(&error.to_string());
        let (finished, finish) = io::pipe().map_err(unable)?;
        let (sender, receiver) = mpsc::channel();
        in_quiet_thread(move || {
            let _ = sender.send(ask());
            // Only now: who waits for it finds the answer.
            drop(finish);
        })
        .map_err(unable)?;
        let until = Instant::now() + MOST_TO_RESOLVE;
        let host = self.url.host.to_string();
        loop {
            match receiver.try_recv() {
                Ok(found) => return found.map_err(unable),
                Err(mpsc::TryRecvError::Disconnected) => {
                    return Err(self.failed("the resolver ended"));
                }
                Err(mpsc::TryRecvError::Empty) => {}
            }
            let waited = self.deadline.wait(finished.as_fd(), Event::Readable, until);
            waited.map_err(|interrupted| {
                interrupted.explain(&host, || {
                    let seconds = MOST_TO_RESOLVE.as_secs();
                    format!("{host} could not be resolved within {seconds} s")
                })
            })?;
        }
    }

    fn failed(&self, why: &str) -> FetchError {
        FetchError::failed(format!("cannot resolve {}: {why}", self.url.host))
    }
}

/// Runs `work` in a thread that takes no signals: their handlers belong to the thread that waits.
fn in_quiet_thread(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // A thread begins with the mask of the one that starts it.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let started = thread::Builder::new()
        .name("pg_session_jwt resolver".to_owned())
        .spawn(work);
    before.thread_set_mask()?;
    started.map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use nix::sys::signal::Signal;

    use super::*;
    use crate::tests::Poll;

    fn resolve(url: &str, reach: Reach) -> Resolve {
        Resolve {
            url: Url::parse(url).unwrap(),
            reach,
            deadline: Deadline::new(Arc::new(Poll)),
        }
    }

    #[test]
    fn a_resolver_that_does_not_answer_is_left_behind_after_two_seconds() {
        let started = Instant::now();
        let slow = || {
            thread::sleep(Duration::from_secs(4));
            Ok(Vec::new())
        };
        let error = resolve("https://id.example.com/", Reach::Any).look_up(slow);
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "id.example.com could not be resolved within 2 s");
        let took = started.elapsed();
        assert!(
            took >= MOST_TO_RESOLVE && took < Duration::from_secs(3),
            "{took:?}"
        );
    }

    #[test]
    fn the_thread_that_resolves_takes_no_signals_and_the_one_that_waits_still_does() {
        let before = SigSet::thread_get_mask().unwrap();
        let (sender, receiver) = mpsc::channel();
        let ask = move || {
            sender.send(SigSet::thread_get_mask().unwrap()).unwrap();
            Ok(Vec::new())
        };
        resolve("https://id.example.com/", Reach::Any)
            .look_up(ask)
            .unwrap();
        let mask = receiver.recv().unwrap();
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGUSR1,
            Signal::SIGALRM,
        ] {
            assert!(
                mask.contains(signal) && !before.contains(signal),
                "{signal}"
            );
        }
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }

    #[test]
    fn a_resolver_that_fails_or_finds_nothing_is_an_error() {
        let resolve = resolve("https://id.example.com/", Reach::Any);
        let fails = || Err(io::Error::other("no such host"));
        let error = resolve.look_up(fails).unwrap_err().to_string();
        assert_eq!(error, "cannot resolve id.example.com: no such host");
        let error = resolve.allowed(Vec::new()).unwrap_err().to_string();
        assert_eq!(error, "cannot resolve id.example.com: it has no address");
    }

    #[test]
    fn one_address_inside_is_one_too_many() {
        let found = |ips: &[&str]| -> Vec<SocketAddr> {
            let ips = ips.iter().map(|ip| ip.parse().unwrap());
            ips.map(|ip| SocketAddr::new(ip, 443)).collect()
        };
        let resolve = resolve("https://id.example.com/", Reach::Public);
        let outside = found(&["93.184.216.34", "2606:2800::1"]);
        assert_eq!(resolve.allowed(outside.clone()), Ok(outside));
        // The last of many, too.
        let many = [["93.184.216.34"; 40].as_slice(), &["10.0.0.5"]].concat();
        let error = resolve.allowed(found(&many)).unwrap_err().to_string();
        let expected = "id.example.com resolves to 10.0.0.5, which is not a public address";
        assert_eq!(error, expected);
    }
}
