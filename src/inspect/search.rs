//! Finding what a region holds under a name, which stands there redacted.
//!
//! Whoever asks knows the key itself, or its name as it is shown. A key is confirmed by its identity, which is a
//! keyed hash of it and can be computed from what the region says: of windows, counters, deployments, jobs and
//! notices always; of rates and sliding windows where their limiter's name is shown in full. So another key that
//! looks the same when it is redacted is not mistaken for it. By its shown name alone a key can be compared, but not
//! told from others that are shown alike.

use super::deployments::deployment_name;
use super::holdings::holder;
use super::leaders::job_name;
use super::limits::key_name;
use super::notices::notice_name;
use super::{get, key_of};
use crate::engine::keys::{SHARED_NAME, identify};
use crate::engine::subject::{Part, Subject};
use crate::engine::{board, health, leader, pool, quota, sliding};
use crate::layout::{IdentityWord, KeyKind, NAME_BYTES, PairWord, section};
use crate::primitives::gcra::Quota;
use crate::primitives::sliding::SlidingLimit;
use crate::region::Region;
use crate::tables::names;

/// Digits of a hash, as it stands for a name that is not written.
const DIGITS: usize = 13;
/// Characters of a secret that a name shows.
const SHOWN: usize = 6;
/// What follows them.
const HIDDEN: &str = "..";

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    text: String,
    token: Option<String>,
}

impl Wanted {
    /// A key as the program knows it, or a name as it is shown, or `#` and a hash.
    pub fn new(text: &str) -> Self {
        let hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        Self { text: text.to_string(), token: hash.then(|| text.to_string()) }
    }

    /// The same for a secret that is counted under this hash of it.
    #[must_use]
    pub fn counted_as(self, token: String) -> Self {
        Self { token: Some(token), ..self }
    }

    /// What was asked for, as it may be shown.
    pub fn shown(&self) -> String {
        names::redact(&self.text)
    }

    /// The part of a key that was asked for, if it was only one.
    pub fn part(&self) -> Option<Part> {
        let part = Subject::parse(&self.text).part;
        (!matches!(part, Part::Own | Part::Window)).then_some(part)
    }

    /// What a key may be called that is meant.
    fn spellings(&self) -> Vec<String> {
        let mut spellings = vec![self.text.clone()];
        if let Some(token) = self.token.as_ref() {
            spellings.extend([format!("{{api_key:{token}}}"), token.clone()]);
        }
        spellings.dedup();
        spellings
    }

    /// Subjects of windows that are meant.
    pub(super) fn subjects(&self) -> Vec<String> {
        let subject = |spelling: String| {
            let Subject { name, part } = Subject::parse(&spelling);
            if part != Part::Own || (name.starts_with('{') && name.ends_with('}')) {
                return vec![name.to_string()];
            }
            // As it is shown, without its braces; perhaps with the name of a part.
            let bare = Subject::parse(&format!("{{{spelling}}}")).name.to_string();
            let of_part =
                spelling.rsplit_once(':').map(|(name, part)| format!("{{{name}}}:{part}"));
            let of_part = of_part.filter(|key| Subject::parse(key).part != Part::Own);
            let of_part = of_part.map(|key| Subject::parse(&key).name.to_string());
            [bare].into_iter().chain(of_part).collect()
        };
        self.spellings().into_iter().flat_map(subject).collect()
    }

    /// Whether only a subject of windows can be meant.
    pub(super) fn is_subject(&self) -> bool {
        self.token.is_some() || (self.text.starts_with('{') && self.text.ends_with('}'))
    }

    fn hash(&self) -> Option<u64> {
        let digits = self.text.strip_prefix('#').filter(|digits| digits.len() == DIGITS)?;
        u64::from_str_radix(digits, 16).ok()
    }
}

/// The table that something stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Keys with limits and counters.
    Keys,
    /// Deployments.
    Deployments,
    /// Pools and their endpoints.
    Endpoints,
    /// Jobs.
    Jobs,
    /// Notices.
    Notices,
}

/// How sure it is that something is what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// Its identity is that of the key.
    Key,
    /// It is shown under that name; others may be, too.
    Name,
    /// Not the key, but counted with it: the same API key with a model, a tag or a server.
    Related,
}

impl Match {
    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Name => "name",
            Self::Related => "related",
        }
    }
}

/// Something that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Where.
    pub table: Table,
    /// Its record there.
    pub slot: usize,
    /// Who stood there.
    pub identity: IdentityWord,
    /// How sure it is.
    pub matched: Match,
    /// The limit of a sliding window, where it was confirmed: a record has 32 bits of it.
    pub sliding: Option<SlidingLimit>,
}

impl Hit {
    /// What it can be asked for by, whatever its name is.
    pub fn id(&self) -> String {
        format!("#{:0DIGITS$x}", self.identity.hash())
    }
}

/// All that is known under a name: keys, deployments, pools, jobs and notices, surest first.
pub fn search(region: &Region, wanted: &Wanted) -> Vec<Hit> {
    let mut hits = wanted.hash().map_or_else(
        || [keys(region, wanted), named(region, wanted)].concat(),
        |hash| by_hash(region, hash),
    );
    hits.sort_by_key(|hit| (hit.matched, hit.table, hit.slot));
    hits
}

/// Every record.
pub fn all(region: &Region) -> impl Iterator<Item = Hit> {
    let keys = region.written(section::BUCKETS, region.buckets());
    let keys = keys.map(|(slot, record)| (slot, Table::Keys, &record.identity));
    let deployments = region.written(section::DEPLOYMENTS, region.deployments());
    let deployments =
        deployments.map(|(slot, record)| (slot, Table::Deployments, &record.identity));
    let endpoints = region.written(section::ENDPOINTS, region.endpoints());
    let endpoints = endpoints.map(|(slot, record)| (slot, Table::Endpoints, &record.identity));
    let jobs = region.written(section::JOBS, region.jobs());
    let jobs = jobs.map(|(slot, record)| (slot, Table::Jobs, &record.identity));
    let notices = region.written(section::BOARD, region.board());
    let notices = notices.map(|(slot, record)| (slot, Table::Notices, &record.identity));
    let others = deployments.chain(endpoints).chain(jobs).chain(notices);
    keys.chain(others)
        .filter_map(|(slot, table, word)| Some(hit(table, slot, key_of(word)?, Match::Key)))
        .filter(|hit| hit.identity.kind() != KeyKind::Tally as u64)
}

fn hit(table: Table, slot: usize, identity: IdentityWord, matched: Match) -> Hit {
    Hit { table, slot, identity, matched, sliding: None }
}

fn by_hash(region: &Region, hash: u64) -> Vec<Hit> {
    all(region).filter(|hit| hit.identity.hash() == hash).collect()
}

fn keys(region: &Region, wanted: &Wanted) -> Vec<Hit> {
    let spellings = wanted.spellings();
    let subjects = wanted.subjects();
    let counters = spellings.iter().cloned().chain(spellings.iter().map(|s| format!("{{{s}}}")));
    let exact: Vec<IdentityWord> = subjects
        .iter()
        .map(|name| identify(region, KeyKind::Window, 0, name.as_bytes()).0)
        .chain(counters.map(|name| identify(region, KeyKind::Counter, 0, name.as_bytes()).0))
        .collect();
    let spelled: Vec<Spelling> = spellings.iter().cloned().map(Spelling::new).collect();
    let (own, _) = region.key_buckets();
    let buckets = region.written(section::BUCKETS, region.buckets());
    let found = buckets.filter_map(|(slot, bucket)| {
        let identity = key_of(&bucket.identity)?;
        let found = |matched| Some(hit(Table::Keys, slot, identity, matched));
        if exact.contains(&identity) {
            return found(Match::Key);
        }
        let kind = KeyKind::from_raw(identity.kind())?;
        let name = || region.names().get(slot).and_then(names::read);
        match kind {
            KeyKind::Gcra | KeyKind::Sliding => {
                let name = name()?;
                let one =
                    Limited { region, kind, identity, name: &name, limits: get(&bucket.limits) };
                match one.is_of(&spelled) {
                    Confirmed::Yes(sliding) => {
                        let hit = hit(Table::Keys, slot, identity, Match::Key);
                        Some(Hit { sliding, ..hit })
                    }
                    Confirmed::No if name != wanted.text => None,
                    Confirmed::Unknown | Confirmed::No => found(Match::Name),
                    Confirmed::Other if name == wanted.text && slot >= own.len() => {
                        found(Match::Key)
                    }
                    Confirmed::Other => None,
                }
            }
            KeyKind::Window | KeyKind::Counter => {
                let name = name()?;
                if name == wanted.text {
                    let shared = slot >= own.len() && name == SHARED_NAME;
                    return found(if shared { Match::Key } else { Match::Name });
                }
                let token = wanted.token.as_ref().filter(|_| kind == KeyKind::Window)?;
                let related = with_token(&name, token)?;
                let certain = identify(region, kind, 0, related.as_bytes()).0 == identity;
                found(if certain { Match::Related } else { return None })
            }
            KeyKind::Tally | KeyKind::Chunk | KeyKind::Named => None,
        }
    });
    found.collect()
}

/// The subject that is shown as `name`, if the secret in it is that token; `None` = it has another one, or none.
fn with_token(name: &str, token: &str) -> Option<String> {
    let shown: String = token.chars().take(SHOWN).chain(HIDDEN.chars()).collect();
    let has = name.split(':').any(|part| part == shown);
    let parts: Vec<&str> =
        name.split(':').map(|part| if part == shown { token } else { part }).collect();
    has.then(|| format!("{{{}}}", parts.join(":")))
}

/// Whether a key of a limiter is one that is meant.
enum Confirmed {
    /// Its identity says so; with the limit of a sliding window.
    Yes(Option<SlidingLimit>),
    /// It looks the same, and its identity is another one.
    No,
    /// It looks the same, and its identity cannot be computed.
    Unknown,
    /// It does not look the same.
    Other,
}

/// A key of a limiter, which is named `limiter/key`, or `key` where the limiter has no name.
struct Limited<'a> {
    region: &'a Region,
    kind: KeyKind,
    identity: IdentityWord,
    name: &'a str,
    limits: PairWord,
}

/// What a spelling may mean where keys have limiters, made once for all records.
struct Spelling {
    text: String,
    /// As it is shown.
    redacted: String,
    /// The limiters and keys that it may be, without or with a slash between them, and how these are shown.
    readings: Vec<(String, String, String)>,
}

impl Spelling {
    fn new(text: String) -> Self {
        let slashes = text.match_indices('/').take(NAME_BYTES);
        let splits = slashes.map(|(at, _)| (&text[..at], &text[at + 1..]));
        let reading = |(label, key): (&str, &str)| {
            (label.to_string(), key.to_string(), shown(label, &names::redact(key)))
        };
        let readings = std::iter::once(("", text.as_str())).chain(splits).map(reading).collect();
        Self { redacted: names::redact(&text), readings, text }
    }
}

impl Limited<'_> {
    fn is_of(&self, spellings: &[Spelling]) -> Confirmed {
        let mut answer = Confirmed::Other;
        for spelling in spellings {
            let readings = spelling.readings.iter().filter(|(.., shown)| shown == self.name);
            for (label, key, _) in readings {
                match self.reads(label, key, answer) {
                    Confirmed::Yes(limit) => return Confirmed::Yes(limit),
                    other => answer = other,
                }
            }
            // A key of this limiter, whose name loses its braces.
            let slashes = self.name.match_indices('/');
            let rest = |at: usize| self.name.get(at + 1..).unwrap_or_default();
            for (at, _) in slashes.filter(|&(at, _)| spelling.redacted.starts_with(rest(at))) {
                let label = &self.name[..at];
                for label in [format!("{{{label}}}"), label.to_string()] {
                    if shown(&label, &spelling.redacted) != self.name {
                        continue;
                    }
                    match self.reads(&label, &spelling.text, answer) {
                        Confirmed::Yes(limit) => return Confirmed::Yes(limit),
                        other => answer = other,
                    }
                }
            }
        }
        answer
    }

    /// What is known when a reading that looks the same is compared, too.
    fn reads(&self, label: &str, key: &str, before: Confirmed) -> Confirmed {
        match self.limit_if(label, key.as_bytes()) {
            Some(Ok(limit)) => Confirmed::Yes(limit),
            // What a name hides, or has lost, is not known.
            Some(Err(())) if !label.contains(HIDDEN) && !label.contains('?') => match before {
                Confirmed::Unknown => before,
                _ => Confirmed::No,
            },
            _ => Confirmed::Unknown,
        }
    }

    /// The limit of the limiter of that name if the key is one of it; `None` = the record's limits make no limiter.
    fn limit_if(&self, label: &str, key: &[u8]) -> Option<Result<Option<SlidingLimit>, ()>> {
        let (first, second) = (self.limits.requests(), self.limits.tokens());
        let is = |domain| identify(self.region, self.kind, domain, key).0 == self.identity;
        if self.kind == KeyKind::Gcra {
            let quota = Quota::new(u32::try_from(first).ok()?, u32::try_from(second).ok()?)?;
            return Some(is(quota::domain(self.region, label, quota)).then_some(None).ok_or(()));
        }
        // The record has the lower bits of the limit.
        let limits = (0..=SlidingLimit::MAX_LIMIT >> 32)
            .filter_map(|high| SlidingLimit::new(high << 32 | first, second));
        let mut any = false;
        for limit in limits {
            any = true;
            if is(sliding::domain(self.region, label, limit)) {
                return Some(Ok(Some(limit)));
            }
        }
        any.then_some(Err(()))
    }
}

/// How a key of a limiter is shown, when the key is as it is shown.
fn shown(label: &str, key: &str) -> String {
    let hidden = || format!("{}/{key}", names::redact(label));
    let mut shown = if label.is_empty() { key.to_string() } else { hidden() };
    names::truncate(&mut shown, NAME_BYTES);
    shown
}

/// Deployments, pools, endpoints, jobs and notices.
fn named(region: &Region, wanted: &Wanted) -> Vec<Hit> {
    let spellings = wanted.spellings();
    let identities = |domain: u64| -> Vec<IdentityWord> {
        let of = |name: &String| identify(region, KeyKind::Named, domain, name.as_bytes()).0;
        spellings.iter().map(of).collect()
    };
    let (deployments, jobs) = (identities(health::DEPLOYMENTS), identities(leader::JOBS));
    let (pools, notices) = (identities(pool::POOLS), identities(board::NOTICES));
    let known = all(region).filter(|hit| hit.table != Table::Keys);
    let found = known.filter_map(|Hit { table, slot, identity, .. }| {
        let (names, is) = match table {
            Table::Keys => return None,
            Table::Deployments => {
                let record = region.deployments().get(slot)?;
                (vec![deployment_name(record)], deployments.contains(&identity))
            }
            Table::Jobs => (vec![job_name(region.jobs().get(slot)?)], jobs.contains(&identity)),
            Table::Notices => {
                (vec![notice_name(region.board().get(slot)?)], notices.contains(&identity))
            }
            Table::Endpoints => {
                let record = region.endpoints().get(slot)?;
                let of = get(&record.pool);
                let pool =
                    region.endpoints().iter().find(|pool| key_of(&pool.identity) == Some(of));
                let domain = pool.map(|pool| pool::domain(region, &pool::name_of(pool)));
                let own = domain.is_some_and(|domain| identities(domain).contains(&identity));
                let (_, full) = holder(region, pool::key_slot(slot));
                (vec![pool::name_of(record), full], own || pools.contains(&identity))
            }
        };
        let matched = if is { Some(Match::Key) } else { None };
        let by_name = names.contains(&wanted.text).then_some(Match::Name);
        Some(hit(table, slot, identity, matched.or(by_name)?))
    });
    found.collect()
}

/// The name under which something is shown.
pub(super) fn name_of(region: &Region, hit: &Hit) -> String {
    let name = match hit.table {
        Table::Keys => return key_name(region, hit.slot),
        Table::Deployments => region.deployments().get(hit.slot).map(deployment_name),
        Table::Endpoints => region.endpoints().get(hit.slot).map(pool::name_of),
        Table::Jobs => region.jobs().get(hit.slot).map(job_name),
        Table::Notices => region.board().get(hit.slot).map(notice_name),
    };
    name.unwrap_or_else(|| hit.id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FakeClock;
    use crate::config::Capacity;
    use crate::engine::Engine;
    use crate::engine::pool::Settings;
    use crate::engine::slots::SlotAsk;
    use crate::region::create_heap;

    const HASH: &str = "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b";
    /// Shown alike.
    const TWIN: &str = "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4c";

    fn engine() -> Engine {
        let clock = FakeClock::at(1_000_000_000_000);
        let capacity = Capacity::checked(1024, 64, 16).unwrap();
        Engine::new(create_heap(capacity, Box::new(clock)).unwrap())
    }

    fn found(engine: &Engine, text: &str) -> Vec<(String, Match)> {
        of(engine, &Wanted::new(text))
    }

    fn of(engine: &Engine, wanted: &Wanted) -> Vec<(String, Match)> {
        let hits = search(engine.region(), wanted);
        hits.iter().map(|hit| (name_of(engine.region(), hit), hit.matched)).collect()
    }

    fn one(name: &str, matched: Match) -> Vec<(String, Match)> {
        vec![(name.to_string(), matched)]
    }

    #[test]
    fn a_subject_is_found_however_it_is_written() {
        let engine = engine();
        engine.hit_all(&[("{user:alice}:window", "{user:alice}:requests")], 60).unwrap();
        engine.hit_all(&[("{user:alic}:window", "{user:alic}:requests")], 60).unwrap();
        for text in ["{user:alice}", "user:alice", "{user:alice}:requests", "user:alice:tokens"] {
            assert_eq!(found(&engine, text), one("user:alice", Match::Key), "{text}");
        }
        assert_eq!(Wanted::new("{user:alice}:tokens").part(), Some(Part::Tokens));
        assert_eq!(Wanted::new("{user:alice}:window").part(), None);
        let id = search(engine.region(), &Wanted::new("user:alice"))[0].id();
        assert_eq!(found(&engine, &id), one("user:alice", Match::Key));
        for text in ["user:ali", "alice", "#0000000000000", "#", "", "{}", ":requests"] {
            assert_eq!(found(&engine, text), [], "{text}");
        }
    }

    #[test]
    fn keys_that_are_shown_alike_are_told_apart_by_their_hash() {
        let engine = engine();
        for hash in [HASH, TWIN] {
            let (window, counter) =
                (format!("{{api_key:{hash}}}:window"), format!("{{api_key:{hash}}}:requests"));
            engine.hit_all(&[(&window, &counter)], 60).unwrap();
        }
        let hits = |text: &str| search(engine.region(), &Wanted::new(text));
        for text in [HASH, &format!("{{api_key:{HASH}}}"), &format!("api_key:{HASH}")] {
            assert_eq!(found(&engine, text), one("api_key:88dc28..", Match::Key), "{text}");
        }
        assert_ne!(hits(HASH)[0].slot, hits(TWIN)[0].slot);
        let token = Wanted::new("sk-whatever").counted_as(HASH.to_string());
        assert_eq!(search(engine.region(), &token), hits(HASH));
        // By its shown name each of them may be meant.
        let by_name = hits("api_key:88dc28..");
        assert_eq!(by_name.len(), 2);
        assert!(by_name.iter().all(|hit| hit.matched == Match::Name));
        assert_eq!(found(&engine, &format!("{}d", &HASH[..63])), []);
    }

    #[test]
    fn what_is_counted_with_an_api_key_is_found_with_it() {
        let engine = engine();
        for hash in [HASH, TWIN] {
            let subject = format!("{{model_per_key:{hash}:gpt-4o}}");
            let (window, counter) = (format!("{subject}:window"), format!("{subject}:tokens"));
            engine.hit_all(&[(&window, &counter)], 60).unwrap();
        }
        let hits = found(&engine, HASH);
        assert_eq!(hits, one("model_per_key:88dc28..:gpt-4o", Match::Related));
    }

    #[test]
    fn a_key_of_a_limiter_is_confirmed_by_the_limiter_s_name_and_rate() {
        let engine = engine();
        let (plain, named) = (
            engine.limiter("", Quota::new(60, 6).unwrap()),
            engine.limiter("uploads", Quota::new(7, 3).unwrap()),
        );
        let secret = "sk-abcdefghijklmnop";
        for key in [secret, "sk-abcdefghijklmnoq", "team"] {
            engine.check(&plain, key.as_bytes()).unwrap();
            engine.check(&named, key.as_bytes()).unwrap();
        }
        let both =
            |key: &str| vec![(key.to_string(), Match::Key), (format!("uploads/{key}"), Match::Key)];
        let sorted = |text: &str| {
            let mut hits = found(&engine, text);
            hits.sort();
            hits
        };
        assert_eq!(sorted(secret), both("sk-abc.."));
        assert_eq!(sorted("team"), both("team"));
        assert_eq!(found(&engine, "uploads/team"), one("uploads/team", Match::Key));
        assert_eq!(found(&engine, "sk-abcdefghijklmnor"), []);
        assert_eq!(found(&engine, "sk-abc..").len(), 2);
        assert!(found(&engine, "sk-abc..").iter().all(|(_, matched)| *matched == Match::Name));
        // What the name of a limiter hides cannot be computed.
        let hidden = engine.limiter("sk-limiter-of-somebody", Quota::new(5, 5).unwrap());
        engine.check(&hidden, b"solo").unwrap();
        assert_eq!(found(&engine, "solo"), one("sk-lim../solo", Match::Name));
        assert_eq!(found(&engine, "sk-limiter-of-somebody/solo"), one("sk-lim../solo", Match::Key));
    }

    #[test]
    fn a_long_key_is_looked_for_as_any_other() {
        let engine = engine();
        let named = engine.limiter("a/b", Quota::new(60, 6).unwrap());
        let long = "a/b/".repeat(2_000);
        engine.check(&named, long.as_bytes()).unwrap();
        for n in 0..50 {
            engine.check(&named, format!("c/{n}").as_bytes()).unwrap();
        }
        let name = names::redact(&format!("a/b/{long}"));
        assert_eq!(found(&engine, &long), one(&name, Match::Key));
        assert_eq!(found(&engine, &format!("a/b/{long}")), one(&name, Match::Key));
        assert_eq!(found(&engine, &"/".repeat(20_000)), []);
    }

    #[test]
    fn the_limit_of_a_sliding_window_is_known_to_its_last_bit() {
        let engine = engine();
        let large = SlidingLimit::new((1 << 40) - 3, 60).unwrap();
        engine.check_sliding(&engine.sliding_limiter("bytes", large), b"crawler", 1).unwrap();
        let hits = search(engine.region(), &Wanted::new("crawler"));
        assert_eq!((hits.len(), hits[0].matched, hits[0].sliding), (1, Match::Key, Some(large)));
        assert_eq!(found(&engine, "crawle"), []);
    }

    #[test]
    fn others_are_found_by_what_they_are_called_and_shown_as() {
        let engine = engine();
        let id = "0123456789abcdef0123456789abcdef";
        engine.introduce(id, &format!("gpt:{id}")).unwrap();
        engine.lead("price-sync", 60).unwrap();
        engine.publish("models", b"bytes", 60).unwrap();
        let pool = engine.pool("openai", Settings::default()).unwrap();
        engine.connect(&pool, "https://user:secret@api.example.com").unwrap();
        engine.add("spend:team", 7, 60).unwrap();
        assert_eq!(found(&engine, id), one("gpt:012345..", Match::Key));
        assert_eq!(found(&engine, "gpt:012345.."), one("gpt:012345..", Match::Name));
        assert_eq!(found(&engine, "0123456789abcdef0123456789abcdee"), []);
        assert_eq!(found(&engine, "price-sync"), one("price-sync", Match::Key));
        assert_eq!(found(&engine, "models"), one("models", Match::Key));
        assert_eq!(found(&engine, "spend:team"), one("spend:team", Match::Key));
        assert_eq!(found(&engine, "openai"), one("openai", Match::Key));
        let endpoint = |matched| one("https://api.example.com", matched);
        assert_eq!(found(&engine, "https://user:secret@api.example.com"), endpoint(Match::Key));
        assert_eq!(found(&engine, "https://api.example.com"), endpoint(Match::Name));
        assert_eq!(found(&engine, "pool openai: https://api.example.com"), endpoint(Match::Name));
    }

    #[test]
    fn what_keys_without_room_share_is_found_by_its_name() {
        use crate::config::Overflow;
        let clock = FakeClock::at(1_000_000_000_000);
        let capacity = Capacity { keys: 40, lease_chunks: 8, workers: 4, deployments: 8 };
        let engine = Engine::new(create_heap(capacity, Box::new(clock)).unwrap());
        engine.region().set_overflow(Overflow::Shared);
        for n in 0..100 {
            let key = format!("{{user:{n}}}:max_parallel_requests");
            let ask = SlotAsk { key: &key, limit: 200, ttl_s: 0, slot_id: "x" };
            let _ = (engine.add(&format!("c{n}"), 1, 600), engine.acquire_all(&[ask]));
        }
        let shared = found(&engine, SHARED_NAME);
        assert!(!shared.is_empty());
        assert!(
            shared.iter().all(|(name, matched)| { name == SHARED_NAME && *matched == Match::Key })
        );
    }
}
