//! Access to the pure floors for `benches/` and `fuzz/`, which are outside the crate.
//!
//! Behind the feature `bench`, hidden from the documentation, and no interface: it may change with
//! every commit. Each function is thin; those for fuzzing check properties that hold for any bytes,
//! and panic if one does not.

use std::{cell::Cell, rc::Rc, sync::Arc};

use crate::base::{
    backend_set::BackendSet,
    moment::{Tick, UnixSeconds},
};
use crate::certs;
use crate::http::{
    chunks::{Chunks, Step},
    cookies,
    forward::{self, Forward, ForwardedFor, MadeIds},
    framing::{self, BodyLength},
    grammar,
    head::{Method, RequestHead, ResponseHead},
    headers::{Headers, Span},
    names::Name,
    parse::{self, HeadLimits, Parse},
    target, write,
};
use crate::net::{
    buffer::Buffers, client_hello, clock::Clock, deadlines::Deadlines, proxy_header, tls,
};
use crate::plan::{ListenerId, Pool, Route, RouteId, Sticky, Table};
use crate::policy::{
    balance::{Balancer, Candidates, Needs, Prepared, Sample, Weights},
    route::Router,
    sticky::{Pins, Reading, Secrets},
};
use crate::proto::{
    h2::{Conn, Places},
    peer::{Peer, PeerAddress},
};

const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 32 << 10, line_bytes_max: 16 << 10, fields_max: 100 };

const FROM: ForwardedFor<'_> = ForwardedFor {
    peer: b"192.0.2.44",
    trusted: false,
    scheme: b"http",
    port: b"8080",
    pseudonym: b"ringway-0badcafe",
};

/// The reused parts of a connection to a client.
#[derive(Default)]
pub struct Connection {
    head: RequestHead,
    response: ResponseHead,
    made: MadeIds,
    out: Vec<u8>,
}

impl Connection {
    /// Parses a request's head; returns whether it was whole and well-formed.
    pub fn parse(&mut self, input: &[u8]) -> bool {
        matches!(parse::request(input, &LIMITS, &mut self.head), Ok(Parse::Done { .. }))
    }

    /// Parses a response's head; returns whether it was whole and well-formed.
    pub fn parse_response(&mut self, input: &[u8]) -> bool {
        matches!(parse::response(input, &LIMITS, &mut self.response), Ok(Parse::Done { .. }))
    }

    /// Reads the body's length from the parsed request.
    pub fn framing(&self) -> bool {
        framing::request(&self.head).is_ok()
    }

    /// Reads the body's length from the parsed response.
    pub fn framing_response(&mut self) -> bool {
        framing::response(Method::Get, &mut self.response).is_ok()
    }

    /// Parses, edits and writes a request for a backend; returns the bytes to send.
    pub fn relay(&mut self, input: &[u8]) -> &[u8] {
        self.out.clear();
        if self.parse(input)
            && let Ok(body) = framing::request(&self.head)
            && forward::request(&mut self.head, &FROM, &self.made) == Ok(Forward::Send)
        {
            write::request(&self.head, None, body, &mut self.out);
        }
        &self.out
    }

    /// Parses, edits and writes a response for a client; returns the bytes to send.
    pub fn relay_response(&mut self, input: &[u8]) -> &[u8] {
        self.out.clear();
        let to = forward::ToClient { method: self.head.method, version: self.head.version };
        if self.parse_response(input)
            && let Ok(body) = framing::response(to.method, &mut self.response)
            && forward::response(&mut self.response, body, to, || *DATE).is_ok()
        {
            let reply = forward::reply(body, to.version, true);
            write::response(&self.response, reply.body, write::Connection::Unsaid, &mut self.out);
        }
        &self.out
    }
}

/// Compiled routes, and a request to look up.
pub struct Routes {
    router: Router,
    head: RequestHead,
}

impl Routes {
    /// Compiles them; no routes at all if an expression does not compile.
    pub fn compile(routes: &Table<RouteId, Arc<Route>>) -> Routes {
        let router = Router::compile(routes).unwrap_or_default();
        Routes { router, head: RequestHead::default() }
    }

    /// Parses the request; returns whether it was whole and well-formed.
    pub fn ask(&mut self, request: &[u8]) -> bool {
        matches!(parse::request(request, &LIMITS, &mut self.head), Ok(Parse::Done { .. }))
    }

    /// Looks up the request's route; returns whether there is one.
    pub fn find(&self) -> bool {
        matches!(self.router.find(ListenerId(0), &self.head), Ok(Some(_)))
    }
}

/// Backends to pick among, all usable.
pub struct Picks {
    usable: BackendSet,
    weights: Weights,
    balancer: Balancer,
    in_flight: Vec<Cell<u32>>,
    /// The key of the next request, if the algorithm needs one.
    key: Option<u64>,
}

impl Picks {
    /// For the backends of a pool, each with some requests in flight and a response time of its
    /// own.
    pub fn new(pool: &Pool) -> Picks {
        let mut balancer = Balancer::new(pool, &Prepared::of(pool, 1), 0, 1);
        for id in pool.backends.ids() {
            balancer.observe(
                id,
                Sample::FirstByte(5_000 + 100 * u32::from(id.0 % 7)),
                Tick::from_millis(1),
            );
        }
        let in_flight = (0..pool.backends.span()).map(|id| Cell::new(20 + id as u32 % 3));
        let weights = Weights::of(&pool.backends);
        Picks {
            usable: *weights.taking(),
            weights,
            balancer,
            in_flight: in_flight.collect(),
            key: Needs::of(pool).key.then_some(0),
        }
    }

    /// Picks one for the next key; returns whether there is one.
    pub fn pick(&mut self) -> bool {
        if let Some(key) = &mut self.key {
            *key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
        let candidates = Candidates {
            extra: &[],
            usable: &self.usable,
            weights: &self.weights,
            in_flight: &self.in_flight,
            now: Tick::from_millis(1),
            key: self.key,
        };
        self.balancer.pick(&candidates).is_some()
    }
}

/// Any bytes as frames behind the settings of a client of HTTP/2: each request that they make is
/// to a backend exactly that one request, and nothing of a stream is left in the end.
pub fn fuzz_http2(input: &[u8]) {
    let buffers = Buffers::new(2);
    let deadlines = Deadlines::new(Rc::new(Clock::new()));
    let peer = Peer::new(ListenerId(0), (PeerAddress::of(None), 80), &[], None);
    let places = Rc::new(Places::default()).share(None, usize::MAX);
    let (peer, conn) = (Rc::new(peer), Conn::new(buffers, deadlines, (&LIMITS, places)));
    let at = (Tick::from_millis(1), None);
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    assert_eq!(conn.receive(&settings, &LIMITS, at), (settings.len(), Ok(())));
    let (used, _) = conn.receive(input, &LIMITS, at);
    assert!(used <= input.len());
    while let Some(mut asking) = conn.next(&peer) {
        let mut head = RequestHead::default();
        if asking.take_head(&mut head).is_ok() {
            goes_as_meant(&mut head);
        }
    }
    assert!(conn.is_idle());
    conn.broke();
    assert_eq!(Rc::strong_count(&conn), 1, "a stream is left");
}

/// What is written for a backend is read as the same request, whole.
fn goes_as_meant(head: &mut RequestHead) {
    let Ok(body) = framing::request(head) else { return };
    if forward::request(head, &FROM, &MadeIds::default()) != Ok(Forward::Send) {
        return;
    }
    let mut out = Vec::new();
    write::request(head, None, body, &mut out);
    let limits = HeadLimits { head_bytes_max: 64 << 10, fields_max: 200, ..LIMITS };
    let mut again = RequestHead::default();
    let sent = parse::request(&out, &limits, &mut again);
    assert_eq!(sent, Ok(Parse::Done { used: out.len() }));
    assert_eq!(framing::request(&again), Ok(body));
    let spans: [fn(&RequestHead) -> Span; 3] =
        [|head| head.target, |head| head.authority, |head| head.method_span];
    for span in spans {
        assert_eq!(again.bytes(span(&again)), head.bytes(span(head)));
    }
}

/// Any bytes as a request's head: both ways through it agree, cutting it anywhere gives the same
/// result, and what we would send parses as the same request.
pub fn fuzz_request_head(input: &[u8]) {
    parse::ways::agree_on_request(input, &LIMITS);
    let mut head = RequestHead::default();
    let whole = parse::request(input, &LIMITS, &mut head);
    let mut again = RequestHead::default();
    let cut = cut_of(input);
    match parse::request(input.get(..cut).unwrap_or_default(), &LIMITS, &mut again) {
        Ok(Parse::More) => {}
        earlier => assert_eq!(earlier, whole, "cut at {cut}"),
    }
    let Ok(Parse::Done { used }) = whole else { return };
    assert!(used <= input.len());
    assert_eq!(parse::complete(input, 0), Some(used));
    let Ok(body) = framing::request(&head) else { return };
    if forward::request(&mut head, &FROM, &MadeIds::default()) != Ok(Forward::Send) {
        return;
    }
    let mut out = Vec::new();
    write::request(&head, Some(b"backend"), body, &mut out);
    let limits = HeadLimits { head_bytes_max: 64 << 10, fields_max: 200, ..LIMITS };
    let sent = parse::request(&out, &limits, &mut again);
    assert_eq!(sent, Ok(Parse::Done { used: out.len() }));
    assert_eq!(framing::request(&again), Ok(body));
    assert_eq!(again.bytes(again.target), head.bytes(head.target));
}

/// A value of Date.
const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

/// Any bytes as a response's head; both ways through it agree.
pub fn fuzz_response_head(input: &[u8]) {
    parse::ways::agree_on_response(input, &LIMITS);
    let mut head = ResponseHead::default();
    let whole = parse::response(input, &LIMITS, &mut head);
    let mut again = ResponseHead::default();
    let cut = cut_of(input);
    match parse::response(input.get(..cut).unwrap_or_default(), &LIMITS, &mut again) {
        Ok(Parse::More) => {}
        earlier => assert_eq!(earlier, whole, "cut at {cut}"),
    }
    let Ok(Parse::Done { used }) = whole else { return };
    assert!(used <= input.len());
    let Ok(body) = framing::response(Method::Get, &mut head) else { return };
    let to = forward::ToClient { method: Method::Get, version: Default::default() };
    if forward::response(&mut head, body, to, || *DATE).is_err() {
        return;
    }
    let reply = forward::reply(body, to.version, true);
    let mut out = Vec::new();
    write::response(&head, reply.body, write::Connection::Unsaid, &mut out);
    let limits = HeadLimits { head_bytes_max: 64 << 10, fields_max: 200, ..LIMITS };
    let sent = parse::response(&out, &limits, &mut again);
    assert_eq!(sent, Ok(Parse::Done { used: out.len() }));
    if reply.body != BodyLength::None {
        assert_eq!(framing::response(Method::Get, &mut again), Ok(reply.body));
    }
}

/// Any bytes as a chunked body: in one read, in two, and in place the result is the same.
pub fn fuzz_chunked(input: &[u8]) {
    let whole = decoded(&[input]);
    let (first, second) = input.split_at(cut_of(input));
    assert_eq!(decoded(&[first, second]), whole);
    let mut bytes = input.to_vec();
    let compacted = Chunks::of_request(LIMITS).compact(&mut bytes, &mut Headers::default());
    match (compacted, whole) {
        (Ok(compacted), Some((body, used, ended))) => {
            assert_eq!(bytes.get(compacted.body), Some(&body[..]));
            assert_eq!((compacted.consumed, compacted.ended), (used, ended));
        }
        (compacted, whole) => assert_eq!(compacted.is_ok(), whole.is_some()),
    }
}

/// The body of a message in these pieces, how many bytes it took, and whether it is over.
fn decoded(pieces: &[&[u8]]) -> Option<(Vec<u8>, usize, bool)> {
    let mut chunks = Chunks::of_request(LIMITS);
    let mut trailers = Headers::default();
    let (mut body, mut used) = (Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let step = chunks.step(rest, &mut trailers).ok()?;
            let here = match step {
                Step::More => rest.len(),
                Step::Skip(here) | Step::Body(here) | Step::End(here) => here,
            };
            let (taken, left) = rest.split_at(here);
            if matches!(step, Step::Body(_)) {
                body.extend_from_slice(taken);
            }
            used += here;
            rest = left;
            if matches!(step, Step::More | Step::End(_)) {
                break;
            }
        }
    }
    Some((body, used, chunks.is_done()))
}

/// Any bytes as a target, a host and a path: a path that routes see is its own normalised form and
/// has no dot segment.
pub fn fuzz_target(input: &[u8]) {
    for method in [Method::Get, Method::Options, Method::Connect] {
        if let Ok(read) = target::read(method, input) {
            assert!(read.path.end <= input.len() && read.query.end <= input.len());
            let authority = input.get(read.authority).unwrap_or_default();
            assert!(authority.is_empty() || target::is_authority(authority));
        }
    }
    let mut host = Vec::new();
    target::normalise_host(input, &mut host);
    let (mut copy, mut again) = (Vec::new(), Vec::new());
    if let Ok(path) = target::normalise_path(input, &mut copy) {
        let dots = |segment: &[u8]| matches!(segment, b"." | b"..");
        assert!(!path.split(|byte| *byte == b'/').any(dots));
        assert!(!path.iter().any(|byte| matches!(byte, b';' | b'\\')));
        assert_eq!(target::normalise_path(path, &mut again), Ok(path));
    }
}

/// Any bytes as a line of cookies: ours are removed, the others are unchanged, and none of it was
/// written by us.
pub fn fuzz_cookies(line: &[u8]) {
    let name = b"rw";
    let mut headers = Headers::default();
    headers.push(Name::Cookie, b"cookie", line);
    let Ok(secrets) = Secrets::parse(b"a secret of the fuzz targets") else { return };
    let pins = Pins::new(&Pool::default(), &Sticky::default(), &secrets);
    let reading = pins.read(cookies::values(&headers, name), UnixSeconds(u64::from(u32::MAX / 2)));
    assert!(matches!(reading, Reading::Absent | Reading::Malformed | Reading::Forged));
    let ours = cookies::values(&headers, name).count();
    assert_eq!(reading == Reading::Absent, ours == 0);
    cookies::remove(&mut headers, name);
    assert_eq!(cookies::values(&headers, name).count(), 0);
    let rest = headers.first(Name::Cookie).unwrap_or_default();
    assert!(ours > 0 || rest == line);
    assert!(others(rest).eq(others(line)));
}

/// Any bytes as the first of a TLS client: however they are split, the whole says the same, and
/// what was complete stays so.
pub fn fuzz_client_hello(input: &[u8]) {
    let mut before = client_hello::Parsed::More;
    for end in 0..=input.len().min(2048) {
        let parsed = client_hello::parse(input.get(..end).unwrap_or_default());
        if before != client_hello::Parsed::More {
            assert_eq!(parsed, before, "{end}");
        }
        before = parsed;
    }
    let _ = client_hello::parse(input);
}

/// Any bytes as a PROXY header: however they are split, the whole says the same, and none of what
/// follows is taken.
pub fn fuzz_proxy_header(input: &[u8]) {
    for end in 0..=input.len().min(2048) {
        let parsed = proxy_header::parse(input.get(..end).unwrap_or_default());
        match parsed {
            Ok(proxy_header::Parsed::More) => {}
            Ok(proxy_header::Parsed::Done { used, .. }) => {
                assert_eq!(used, end, "it was complete before");
                let whole = proxy_header::parse(input);
                assert_eq!(whole, parsed);
                return;
            }
            Err(why) => return assert!(!why.is_empty()),
        }
    }
}

/// Any bytes as a certificate, and as a file: what is accepted signs for its names, and what is not
/// has a sentence.
pub fn fuzz_certificates(input: &[u8]) {
    certs::describe(input);
    let now = UnixSeconds(1_796_083_200);
    match certs::load(input, None, None) {
        Ok(pair) => {
            assert!(!pair.certified.cert.is_empty());
            assert!(!pair.facts.names.is_empty());
            assert!(pair.findings(now).all(|(_, finding)| !finding.what.is_empty()));
        }
        Err((_, finding)) => assert!(!finding.what.is_empty()),
    }
    for crl in [None, Some(input)] {
        if let Err((_, finding)) = certs::clients(input, crl, (true, 6), now) {
            assert!(!finding.what.is_empty());
        }
    }
}

/// Any bytes as a program of two TLS connections, one of which reads with our record layer and the
/// other with rustls.
pub fn fuzz_tls_records(input: &[u8]) {
    tls::differ(input);
}

/// The cookies of a line that are not named `rw`, without empty ones.
fn others(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_other = |pair: &&[u8]| {
        let named = pair.strip_prefix(b"rw").map(grammar::trim_start);
        !pair.is_empty() && !named.is_some_and(|rest| rest.starts_with(b"="))
    };
    line.split(|byte| *byte == b';').map(grammar::trim).filter(is_other)
}

/// A cut position that the input itself chooses.
fn cut_of(input: &[u8]) -> usize {
    let sum =
        input.iter().fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    sum % (input.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::testkit::allocations;

    /// Runs the fuzz target on near-valid lines in every `cargo test`.
    #[test]
    fn whatever_stands_beside_a_cookie_of_ours_stays() {
        const PIECES: [&[u8]; 10] =
            [b"rw", b"rw=x", b"=", b";", b"; ", b" ", b"a", b"\t", b"\"", b"rw=\xff"];
        for seed in 0..2_000 {
            let rng = &mut Rng::seeded(seed);
            let count = rng.below(12);
            let pieces = (0..count).map(|_| PIECES[rng.below(10) as usize]);
            let line: Vec<u8> = pieces.flatten().copied().collect();
            println!("seed {seed}: {:?}", String::from_utf8_lossy(&line));
            fuzz_cookies(&line);
        }
    }

    /// The same with certificates of which a few bytes are others, as files and as DER.
    #[test]
    fn a_certificate_of_which_bytes_are_changed_is_used_or_has_a_sentence() {
        use rustls::pki_types::{CertificateDer, pem::PemObject as _};
        let sample = certs::sample::own(&["a.example"], certs::sample::Kind::Ecdsa, 2100);
        let file = format!("{}{}", sample.cert, sample.key).into_bytes();
        let der = CertificateDer::from_pem_slice(&file).unwrap().to_vec();
        for seed in 0..3_000 {
            let rng = &mut Rng::seeded(seed);
            for good in [&file, &der] {
                let mut bytes = good.clone();
                for _ in 0..1 + rng.below(3) {
                    let at = rng.below(u32::try_from(bytes.len()).unwrap()) as usize;
                    bytes[at] = u8::try_from(rng.below(256)).unwrap();
                }
                bytes.truncate(bytes.len() - rng.below(4) as usize * 7);
                println!("seed {seed}");
                fuzz_certificates(&bytes);
            }
        }
    }

    const REQUEST: &[u8] = include_bytes!("../benches/heads/browser.txt");
    const RESPONSE: &[u8] = include_bytes!("../benches/heads/nginx.txt");

    /// Everything decided about a request on its way, with reused buffers only.
    #[test]
    fn a_warm_request_allocates_nothing_on_the_pure_floors() {
        let text = concat!(
            "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n",
            "[pool.app]\nbackends = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n",
            "[[route]]\nname = \"a\"\npath = \"/articles/\"\npool = \"app\"\n",
        );
        let plan = crate::config::parse("bench.toml", text).unwrap().plan;
        let mut connection = Connection::default();
        let mut routes = Routes::compile(&plan.routes);
        let mut picks = Picks::new(plan.pools.values().next().unwrap());
        let mut all = || {
            let mut relayed = connection.relay(REQUEST).len();
            assert!(routes.ask(REQUEST) && routes.find() && picks.pick());
            relayed += connection.relay_response(RESPONSE).len();
            assert!(relayed > REQUEST.len() + RESPONSE.len());
        };
        assert_ne!(allocations(&mut all), 0, "nothing is counted");
        for _ in 0..3 {
            all();
        }
        assert_eq!(allocations(|| (0..100).for_each(|_| all())), 0);
    }
}
