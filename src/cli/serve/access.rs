//! Who is answered. A browser asks on behalf of any site that its user has open, so loopback alone protects
//! nothing: a site may have its own name resolve to 127.0.0.1.

use crate::cli::outcome::Failure;
use hyper::header::{AUTHORIZATION, HOST, HeaderName};
use hyper::{Request, StatusCode};
use std::ffi::OsString;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The environment variable with the token; never an argument, which every process of the machine could read.
pub(super) const TOKEN: &str = "FL_SHM_TOKEN";
/// Fewer characters can be guessed.
const SHORTEST: usize = 16;

/// Who may ask.
pub(super) struct Access {
    token: Option<Vec<u8>>,
    /// Whether the server can be reached from this machine only.
    loopback: bool,
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
}

const ELSEWHERE: Refusal = Refusal {
    status: StatusCode::MISDIRECTED_REQUEST,
    reason: "ask for 127.0.0.1, [::1] or localhost: another name may be another site's",
};
const ANOTHER_SITE: Refusal =
    Refusal { status: StatusCode::FORBIDDEN, reason: "another site may not ask" };
const NO_TOKEN: Refusal =
    Refusal { status: StatusCode::UNAUTHORIZED, reason: "a bearer token is needed" };

impl Access {
    /// Access to a server on this address with this token.
    pub(super) fn new(host: IpAddr, token: Option<OsString>) -> Result<Self, Failure> {
        let token = token.map(OsString::into_encoded_bytes);
        let usable =
            |token: &Vec<u8>| token.len() >= SHORTEST && token.iter().all(u8::is_ascii_graphic);
        let loopback = host.is_loopback();
        match token {
            Some(token) if !usable(&token) => Err(Failure::Message(format!(
                "{TOKEN} is no token: use at least {SHORTEST} letters, digits and marks without spaces"
            ))),
            None if !loopback => Err(Failure::Message(format!(
                "{host} can be reached from other machines: set {TOKEN} to a secret of at least \
                 {SHORTEST} characters, or use --host 127.0.0.1"
            ))),
            token => Ok(Self { token, loopback }),
        }
    }

    /// Why this request is not answered; `None` = it is. The page itself holds nothing of the region and is
    /// shown without a token, so that it can ask for one.
    pub(super) fn refusal<B>(&self, request: &Request<B>, page: bool) -> Option<Refusal> {
        if self.loopback && !asks_for_loopback(request) {
            return Some(ELSEWHERE);
        }
        if page {
            return None;
        }
        if is_from_another_site(request) {
            return Some(ANOTHER_SITE);
        }
        let token = self.token.as_ref()?;
        (!has_token(request, token)).then_some(NO_TOKEN)
    }
}

fn asks_for_loopback<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let in_target = request.uri().authority();
    host.to_str().is_ok_and(is_loopback)
        && in_target.is_none_or(|authority| is_loopback(authority.as_str()))
}

/// Whether an authority, with a port or without, is this machine's own.
fn is_loopback(authority: &str) -> bool {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) if host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback()) => {
            ("localhost", port)
        }
        Some(_) => return false,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let own = host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
    own && (port.is_empty() || port.strip_prefix(':').is_some_and(|n| n.parse::<u16>().is_ok()))
}

/// As browsers tell it. What does not is no browser, and could say what it likes.
fn is_from_another_site<B>(request: &Request<B>) -> bool {
    let site = request.headers().get(HeaderName::from_static("sec-fetch-site"));
    site.is_some_and(|site| site != "same-origin" && site != "none")
}

fn has_token<B>(request: &Request<B>, token: &[u8]) -> bool {
    let mut given = request.headers().get_all(AUTHORIZATION).iter();
    let (Some(given), None) = (given.next(), given.next()) else {
        return false;
    };
    let (scheme, sent) = given.as_bytes().split_at_checked(7).unwrap_or_default();
    let sent = sent.trim_ascii();
    // In the same time wherever they differ.
    let differ = sent.iter().zip(token).fold(0, |differ, (a, b)| black_box(differ | (a ^ b)));
    scheme.eq_ignore_ascii_case(b"bearer ") && sent.len() == token.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    const SECRET: &str = "0123456789abcdef";

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().uri("/api/frame");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    fn status(access: &Access, headers: &[(&str, &str)]) -> u16 {
        access.refusal(&request(headers), false).map_or(200, |refusal| refusal.status.as_u16())
    }

    fn new(host: IpAddr, token: Option<&str>) -> Result<Access, String> {
        Access::new(host, token.map(OsString::from)).map_err(|failure| match failure {
            Failure::Message(message) => message,
            Failure::Closed => unreachable!(),
        })
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        let access = new(LOOPBACK, None).unwrap();
        for host in
            ["localhost", "LocalHost:1", "127.0.0.1", "127.9.9.9:65535", "[::1]", "[::1]:80"]
        {
            assert_eq!(status(&access, &[("host", host)]), 200, "{host}");
        }
        for host in [
            "",
            "example.org",
            "example.org:80",
            "127.0.0.1.example.org",
            "localhost.example.org",
            "0.0.0.0",
            "[::]",
            "[::1",
            "[::1]x",
            "::1",
            "localhost:",
            "localhost:http",
            "localhost:65536",
            "127.0.0.1@example.org",
            "10.0.0.1",
            "127.1",
            "user@localhost",
        ] {
            assert_eq!(status(&access, &[("host", host)]), 421, "{host}");
        }
        assert_eq!(status(&access, &[]), 421);
        assert_eq!(status(&access, &[("host", "localhost"), ("host", "localhost")]), 421);
    }

    #[test]
    fn a_target_with_another_name_is_refused_whatever_the_header_says() {
        let access = new(LOOPBACK, None).unwrap();
        for (target, refused) in [("http://localhost:1/", false), ("http://example.org/", true)] {
            let request =
                Request::builder().uri(target).header("host", "localhost").body(()).unwrap();
            assert_eq!(access.refusal(&request, true).is_some(), refused, "{target}");
        }
    }

    #[test]
    fn other_sites_get_the_page_at_most() {
        let access = new(LOOPBACK, None).unwrap();
        for (site, expected) in
            [("same-origin", 200), ("none", 200), ("cross-site", 403), ("same-site", 403)]
        {
            let headers = [("host", "localhost"), ("sec-fetch-site", site)];
            assert_eq!(status(&access, &headers), expected, "{site}");
            assert_eq!(access.refusal(&request(&headers), true), None);
        }
    }

    #[test]
    fn a_token_is_asked_for_with_everything_but_the_page() {
        let access = new(ANY, Some(SECRET)).unwrap();
        let with =
            |given: &str| status(&access, &[("host", "example.org"), ("authorization", given)]);
        assert_eq!(with(&format!("Bearer {SECRET}")), 200);
        assert_eq!(with(&format!("bearer  {SECRET} ")), 200);
        for given in [
            "",
            "Bearer",
            "Bearer ",
            SECRET,
            "Basic 0123456789abcdef",
            "Bearer 0123456789abcdeX",
            "Bearer X123456789abcdef",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
        ] {
            assert_eq!(with(given), 401, "{given}");
        }
        let twice = ("authorization", "Bearer 0123456789abcdef");
        assert_eq!(status(&access, &[twice, twice]), 401);
        assert_eq!(access.refusal(&request(&[]), true), None);
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        assert!(new(ANY, None).is_err_and(|message| message.contains("set FL_SHM_TOKEN")));
        assert!(new("192.0.2.1".parse().unwrap(), None).is_err());
        assert!(new("::".parse().unwrap(), None).is_err());
        assert!(new("::1".parse().unwrap(), None).is_ok());
        for short in ["", "0123456789abcde", "0123456789 abcdef", "0123456789abcdé"] {
            let refused = new(LOOPBACK, Some(short));
            assert!(refused.is_err_and(|message| !message.contains("0123")), "{short}");
        }
        // One that is given counts on loopback, too.
        let access = new(LOOPBACK, Some(SECRET)).unwrap();
        assert_eq!(status(&access, &[("host", "localhost")]), 401);
    }
}
