//! `fl-shm serve`: a page that shows a region live, for a browser on the same machine.

mod access;
mod answer;
mod body;
mod looks;
mod page;
mod patience;
mod server;
mod source;

use super::OK;
use super::follow::Followed;
use super::outcome::{Failure, Outcome, nothing_found};
use super::select::{self, Select};
use access::{Access, TOKEN};
use clap::Args;
use source::Source;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    pub(super) select: Select,
    /// Where to listen; 0 = any port that is free.
    #[arg(long, default_value_t = 0)]
    pub(super) port: u16,
    /// The address to listen on. One that other machines reach needs a token in `FL_SHM_TOKEN`.
    #[arg(long, default_value = "127.0.0.1", value_parser = address)]
    pub(super) host: IpAddr,
    /// Seconds between two looks at the region.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub(super) interval: Duration,
}

fn address(text: &str) -> Result<IpAddr, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    text.parse().map_err(|_| "use an IP address, e.g. 127.0.0.1 or ::1".to_string())
}

fn interval(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=60.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("use 0.1 to 60 seconds".to_string()),
    }
}

/// `fl-shm serve`
pub(super) fn serve(arguments: &Serve, out: &mut impl Write) -> Outcome {
    let access = Access::new(arguments.host, std::env::var_os(TOKEN))?;
    let Some(chosen) = select::choose(&arguments.select)? else {
        return nothing_found();
    };
    let source = Source::new(Followed::open(&chosen)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let place = SocketAddr::new(arguments.host, arguments.port);
    let refused = |error: std::io::Error| {
        Failure::Message(format!("cannot listen on {place}: {error}; choose another --port"))
    };
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = server::listener(place).map_err(refused)?;
        let place = listener.local_addr()?;
        // Before anybody is told where to ask, so that whoever was told can end it cleanly.
        let end = server::told_to_end()?;
        writeln!(out, "http://{place}/")?;
        out.flush()?;
        server::run(listener, source, access, arguments.interval, end).await;
        Ok(OK)
    })
}
