//! Heap allocations of a warm request, on the whole path, and the heap that an idle client keeps:
//! these tests hold the numbers.
//!
//! The proxy is started through the public API (`ringway::start`), on one core and on each driver,
//! between a client and a backend that are plain threads. A counting allocator counts what the
//! thread of the core allocates, and no other thread; a growing block counts as a new one. The pure
//! floors have a test of their own beside `src/bench.rs`: they may not allocate at all.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(
    unsafe_code,
    reason = "an allocator is unsafe to implement; each call goes to the system's"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use ringway::{Handle, Stop};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs, pki_types::PrivateKeyDer,
};

/// The most allocations of one warm request, and of one over TLS (six are allowed).
const ALLOCATIONS_MAX: u64 = 4;
const ALLOCATIONS_MAX_TLS: u64 = 4;

/// The most heap that an idle client keeps, and one over TLS. nginx keeps 15,300 bytes of memory
/// for one over TLS, of which half is allowed.
const IDLE_BYTES_MAX: i64 = 1_024;
const IDLE_BYTES_MAX_TLS: i64 = 4_096;

/// Idle clients, whose heap is measured.
const IDLE_CLIENTS: usize = 256;

/// One test at a time counts.
static ALONE: Mutex<()> = Mutex::new(());

const WARM_UP: usize = 200;
const REQUESTS: u64 = 500;

/// No wait of this test may take longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Passes everything to the system's allocator, and counts while it is turned on.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static COUNTED: AtomicU64 = AtomicU64::new(0);
/// Bytes that were allocated and not freed.
static KEPT: AtomicI64 = AtomicI64::new(0);

thread_local! {
    /// Whether this is the thread of a core; unknown until it allocates while counting is on.
    static IS_CORE: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Notes a block that is allocated, grows or is freed, and by how many bytes.
fn note(is_new: bool, bytes: i64) {
    if !IS_COUNTING.load(SeqCst) {
        return;
    }
    let is_core = IS_CORE.get().unwrap_or_else(|| {
        // From the kernel, because asking the library may allocate.
        let mut name = [0_u8; 16];
        // SAFETY: PR_GET_NAME writes at most 16 bytes.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        let is_core = name.starts_with(b"ringway-");
        IS_CORE.set(Some(is_core));
        is_core
    });
    if is_core {
        COUNTED.fetch_add(u64::from(is_new), SeqCst);
        KEPT.fetch_add(bytes, SeqCst);
    }
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

// SAFETY: every call is passed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(true, size(layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(true, size(layout.size()));
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, wanted: usize) -> *mut u8 {
        note(true, size(wanted) - size(layout.size()));
        unsafe { System.realloc(block, layout, wanted) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        note(false, -size(layout.size()));
        unsafe { System.dealloc(block, layout) }
    }
}

/// What the core allocates while `act` runs.
fn counted(act: impl FnOnce()) -> u64 {
    COUNTED.store(0, SeqCst);
    IS_COUNTING.store(true, SeqCst);
    act();
    IS_COUNTING.store(false, SeqCst);
    COUNTED.load(SeqCst)
}

/// A certificate, and both ends that use it.
struct Secure {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    listener: String,
    pool: String,
}

impl Secure {
    fn new() -> Secure {
        let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        let path = |end| {
            let name = format!("ringway-allocations-{}.{end}", std::process::id());
            std::env::temp_dir().join(name).display().to_string()
        };
        let (cert, key) = (path("pem"), path("key"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let client = client.with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider);
        let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let der = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = server.with_single_cert(vec![made.cert.der().clone()], der).unwrap();
        let listener =
            format!("tls = {{ certificates = [{{ cert = \"{cert}\", key = \"{key}\" }}] }}");
        let pool = format!("tls = {{ ca = \"{cert}\", server-name = \"a.test\" }}");
        Secure { server: Arc::new(server), client: Arc::new(client), listener, pool }
    }
}

/// Both directions of a connection, plain or not.
trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

/// A backend that answers every request that ends where a read ends. It gets more than one
/// connection if the machine stands still for a while: a POST goes on a young one.
fn backend(answer: &'static [u8], secure: Option<&Secure>) -> SocketAddr {
    let config = secure.map(|secure| Arc::clone(&secure.server));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let connection = connection.unwrap();
            let config = config.clone();
            std::thread::spawn(move || {
                connection.set_nodelay(true).unwrap();
                connection.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut connection: Box<dyn Wire> = match config {
                    None => Box::new(connection),
                    Some(config) => {
                        let tls = ServerConnection::new(config).unwrap();
                        Box::new(StreamOwned::new(tls, connection))
                    }
                };
                let mut room = [0; 4096];
                while connection.read(&mut room).is_ok_and(|count| count > 0) {
                    connection.write_all(answer).unwrap();
                    connection.flush().unwrap();
                }
            });
        }
    });
    address
}

fn proxy(
    driver: &str,
    backend: SocketAddr,
    (listener, pool): (&str, &str),
) -> Result<Handle, String> {
    let text = format!(
        "global = {{ cores = 1, pin = false, driver = \"{driver}\" }}\n\
         [listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n{listener}\n\
         [pool.app]\nbackends = [\"{backend}\"]\n{pool}\n"
    );
    let loaded = ringway::config::parse("allocations.toml", &text);
    let plan = loaded.unwrap_or_else(|problems| panic!("{problems}")).plan;
    ringway::start(plan).map_err(|error| error.to_string())
}

fn connect(listening: SocketAddr, front: Option<&Secure>) -> Box<dyn Wire> {
    let client = TcpStream::connect(listening).unwrap();
    client.set_nodelay(true).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    match front {
        None => Box::new(client),
        Some(secure) => {
            let name = "a.test".try_into().unwrap();
            let tls = ClientConnection::new(Arc::clone(&secure.client), name).unwrap();
            Box::new(StreamOwned::new(tls, client))
        }
    }
}

/// One request and its whole answer, which is as long as the one before.
fn ask(client: &mut dyn Wire, request: &[u8], room: &mut [u8], length: &mut usize) {
    client.write_all(request).unwrap();
    client.flush().unwrap();
    if *length == 0 {
        // The first answer: its length is what comes until its body's end.
        loop {
            *length += client.read(&mut room[*length..]).unwrap();
            if room[..*length].ends_with(b"!") {
                return;
            }
        }
    }
    client.read_exact(&mut room[..*length]).unwrap();
    assert!(room.starts_with(b"HTTP/1.1 200 ") && room[..*length].ends_with(b"!"));
}

/// Asks until everything is warm and then counts: `REQUESTS` of these, and a new connection.
#[track_caller]
fn check(driver: &str, pool: &str, request: &[u8], answer: &'static [u8]) {
    check_over(driver, (None, None), pool, request, answer);
}

/// The same with TLS in front, or to the backend.
#[track_caller]
fn check_over(
    driver: &str,
    (front, back): (Option<&Secure>, Option<&Secure>),
    pool: &str,
    request: &[u8],
    answer: &'static [u8],
) {
    let address = backend(answer, back);
    let listener = front.map_or("", |secure| &secure.listener);
    let handle = match proxy(driver, address, (listener, pool)) {
        Ok(handle) => handle,
        Err(why) => {
            assert!(std::env::var("CI").is_err(), "{why}");
            return eprintln!("skipped: {why}");
        }
    };
    let listening = handle.addresses()[0].1.tcp().unwrap();
    let connect = || connect(listening, front);
    let mut client = connect();
    let (mut room, mut length) = (vec![0; 64 << 10], 0);
    for _ in 0..WARM_UP {
        ask(&mut *client, request, &mut room, &mut length);
    }
    let warm = counted(|| {
        for _ in 0..REQUESTS {
            ask(&mut *client, request, &mut room, &mut length);
        }
    });
    // Proof that counting works: a connection is a task, and a task is allocated.
    let fresh = counted(|| ask(&mut *connect(), request, &mut room, &mut length));
    handle.stop(Stop::Now);
    let head = String::from_utf8_lossy(request.split(|byte| *byte == b'\r').next().unwrap());
    let max = if front.is_some() || back.is_some() { ALLOCATIONS_MAX_TLS } else { ALLOCATIONS_MAX };
    println!(
        "{driver}: {head}: {:.2} allocations (TLS in front {}, behind {})",
        warm as f64 / REQUESTS as f64,
        front.is_some(),
        back.is_some()
    );
    assert!(fresh > 0, "{driver}: nothing was counted");
    assert!(warm <= max * REQUESTS, "{driver}: {head}: {warm} in {REQUESTS} requests");
}

#[test]
fn a_warm_request_costs_few_allocations() {
    let _alone = ALONE.lock().unwrap_or_else(|broken| broken.into_inner());
    let get = include_bytes!("../benches/heads/browser.txt");
    let post = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let plain = b"HTTP/1.1 200 OK\r\nServer: a\r\nContent-Length: 6\r\n\r\nhello!";
    let two = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nCache-Control: no-store\r\n\
                Content-Length: 8\r\n\r\ngoodbye!";
    // The worst case of a sticky pool: an invalid cookie, removed and issued anew.
    let sticky = b"GET /a HTTP/1.1\r\nHost: a\r\nCookie: a=1; ringway=\
        AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA; b=2\r\n\r\n";
    let secret = std::env::temp_dir().join(format!("ringway-allocations-{}", std::process::id()));
    std::fs::write(&secret, "a secret of this test").unwrap();
    let pool = format!("sticky = {{ secret-file = \"{}\" }}", secret.display());
    for driver in ["io_uring", "epoll"] {
        check(driver, "", get, plain);
        check(driver, "", post, two);
        check(driver, &pool, sticky, plain);
        let secure = Secure::new();
        check_over(driver, (Some(&secure), None), "", get, plain);
        check_over(driver, (Some(&secure), None), "", post, two);
        check_over(driver, (Some(&secure), Some(&secure)), &secure.pool, get, plain);
    }
    std::fs::remove_file(&secret).unwrap();
}

/// Opens idle clients: each has had an answer.
fn idle(listening: SocketAddr, front: Option<&Secure>) -> Vec<Box<dyn Wire>> {
    let (mut room, mut length) = (vec![0; 64 << 10], 0);
    let get = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut clients: Vec<_> = (0..IDLE_CLIENTS).map(|_| connect(listening, front)).collect();
    clients.iter_mut().for_each(|client| ask(&mut **client, get, &mut room, &mut length));
    clients
}

/// Waits until it is so, or for long enough; returns the last look.
fn until<T>(look: impl Fn() -> T, is_so: impl Fn(&T) -> bool) -> T {
    let since = Instant::now();
    loop {
        let seen = look();
        if is_so(&seen) || since.elapsed() > PATIENCE {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the core keeps for each idle client, when it has come to rest: no buffer, nothing of a
/// handshake, nothing of a request.
fn check_idle(driver: &str, front: Option<&Secure>, most: i64) {
    let answer = b"HTTP/1.1 200 OK\r\nServer: a\r\nContent-Length: 6\r\n\r\nhello!";
    let address = backend(answer, None);
    let listener = front.map_or("", |secure| &secure.listener);
    let handle = match proxy(driver, address, (listener, "")) {
        Ok(handle) => handle,
        Err(why) => {
            assert!(std::env::var("CI").is_err(), "{why}");
            return eprintln!("skipped: {why}");
        }
    };
    let listening = handle.addresses()[0].1.tcp().unwrap();
    // Tables grow to what they need for as many.
    drop(idle(listening, front));
    let open = || handle.statistics().unwrap().cores[0].connections;
    assert_eq!(until(open, |open| *open == 0), 0, "clients that left are still there");
    KEPT.store(0, SeqCst);
    IS_COUNTING.store(true, SeqCst);
    let clients = idle(listening, front);
    let each = || KEPT.load(SeqCst) / size(IDLE_CLIENTS);
    let kept = until(each, |kept| *kept <= most);
    IS_COUNTING.store(false, SeqCst);
    assert_eq!(open(), IDLE_CLIENTS as u64);
    drop(clients);
    handle.stop(Stop::Now);
    println!("{driver}: an idle client keeps {kept} bytes (TLS: {})", front.is_some());
    // A connection is a task, and a task is allocated.
    assert!(kept > 300, "{driver}: nothing was counted");
    assert!(kept <= most, "{driver}: an idle client keeps {kept} bytes of {most}");
}

#[test]
fn an_idle_client_keeps_little_over_tls_too() {
    let _alone = ALONE.lock().unwrap_or_else(|broken| broken.into_inner());
    let secure = Secure::new();
    for driver in ["io_uring", "epoll"] {
        check_idle(driver, None, IDLE_BYTES_MAX);
        check_idle(driver, Some(&secure), IDLE_BYTES_MAX_TLS);
    }
}
